"""A Hugging Face or fairseq checkpoint -> a folder that fairseq's commands, the hub and lsg-export read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from lsg_fairseq.checkpoints.find import find, find_at
from lsg_fairseq.checkpoints.opened import OpenedCheckpoint
from lsg_fairseq.checkpoints.write_folder import check_folder, generation_flags, write_folder
from lsg_fairseq.data.output_folder import check_is_new, staged_output
from lsg_fairseq.modules.lsg_config import FIELD_ALIASES, LSGConfig, LSGError
from lsg_fairseq.weights.limits import check_number
from lsg_fairseq.weights.values import check_values

logger = logging.getLogger(__name__)

# Positions of a model made from a short one, unless others are asked for.
DEFAULT_POSITIONS = 4096


@dataclass(frozen=True)
class Plan:
    """What a conversion will do; nothing is written yet."""

    source: OpenedCheckpoint
    args: dict[str, Any]
    lengths: tuple[int, int]

    def state_dict(self) -> dict[str, Tensor]:
        """The converted weights; see OpenedCheckpoint.state_dict for what is raised.

        Raises:
            LSGError: also if a weight is not a number.
        """
        state = self.source.state_dict(*self.lengths)
        check_values(state, self.source.name)
        return state

    def lines(self) -> list[str]:
        """The plan in words."""
        spec, args = self.source.spec, self.args
        kind = "LSG" if spec.is_lsg else "short"
        known = (spec.max_source_positions, spec.max_target_positions)
        sides = ("source positions", "target positions") if spec.has_decoder else ("positions",)
        layers = f"{spec.encoder_layers}+{spec.decoder_layers}" if spec.has_decoder else spec.encoder_layers
        generation = f"generation: {' '.join(generation_flags(self.source.generation)) or 'nothing stated'}"
        return [
            f"{self.source.name}: {kind} {spec.model_type or spec.family}, {layers} layers, {spec.embed_dim} wide, "
            f"{len(self.source.dictionary):,} symbols",
            *(f"{what}: {old:,} -> {new:,}" for what, old, new in zip(sides, known, self.lengths, strict=False)),
            f"global table: {'kept as trained' if spec.is_lsg else 'made from the positions'}",
            "attention: " + ", ".join(f"{f.name}={args[f'lsg_{f.name}']}" for f in fields(LSGConfig)),
            *([generation] if spec.has_decoder else []),
            *(f"note: {note}" for note in self.source.notes),
        ]


def convert_checkpoint(
    source: str | Path,
    out: str | Path,
    max_source_positions: int | None = None,
    max_target_positions: int | None = None,
    lsg: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> Plan:
    """Convert a checkpoint into the new folder `out`, read it back and compare a forward; returns what was done.

    Args:
        source: a Hugging Face folder or hub id, a fairseq model.pt, or a folder with one.
        max_source_positions: default 4,096 for a short model (its own if that is more), an LSG model's own otherwise.
        max_target_positions: default as many as source positions; none for an encoder-only model.
        lsg: LSGConfig fields that replace those of the checkpoint.
        tokenizer: folder with Hugging Face tokenizer files that replace the checkpoint's.

    Raises:
        LSGError: anything about the source or the settings is wrong, or `out` exists; nothing is written then.
    """
    check_is_new(out)
    plan = plan_conversion(find(source).local(), max_source_positions, max_target_positions, lsg, tokenizer)
    write_conversion(plan, out)
    return plan


def plan_conversion(
    path: Path,
    max_source_positions: int | None = None,
    max_target_positions: int | None = None,
    lsg: Mapping[str, Any] | None = None,
    tokenizer: str | Path | None = None,
) -> Plan:
    """Open a checkpoint and settle lengths and settings; arguments as for convert_checkpoint."""
    for name, value in (("source", max_source_positions), ("target", max_target_positions)):
        if value is not None:
            check_number(f"max_{name}_positions", value)
    source = find_at(path).open(tokenizer)
    spec = source.spec
    length = max_source_positions or max(spec.max_source_positions, 0 if spec.is_lsg else DEFAULT_POSITIONS)
    target = max_target_positions or (max(length, spec.max_target_positions) if spec.has_decoder else 0)
    if target and not spec.has_decoder:
        raise LSGError(f"{source.name} is an encoder-only model: leave --max-target-positions out, as it has none")
    stated = {name.removeprefix("lsg_"): value for name, value in source.args.items() if name.startswith("lsg_")}
    asked = {FIELD_ALIASES.get(name, name): value for name, value in (lsg or {}).items()}
    settings = asdict(LSGConfig.from_dict({**stated, **asked}))
    args = {**source.args, **{f"lsg_{name}": value for name, value in settings.items()}}
    names = ("max_source_positions", "max_target_positions") if spec.has_decoder else ("max_positions",)
    return Plan(source, args | dict(zip(names, (length, target), strict=False)), (length, target))


def write_conversion(plan: Plan, out: str | Path) -> None:
    """Write the folder staged, check it, and move it into place.

    Raises:
        LSGError: weights and configuration do not fit, or what was written does not read back as it was.
    """
    check_is_new(out)
    source = plan.source
    logger.info(f"converting {source.name}")
    state = plan.state_dict()
    with staged_output(out, must_be_new=True) as staged:
        logger.info(f"writing {out}")
        write_folder(source, plan.args, state, staged)
        logger.info("checking what was written")
        check_folder(state, staged)
