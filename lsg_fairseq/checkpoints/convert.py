"""A Hugging Face or fairseq checkpoint -> a folder that fairseq's commands, the hub and lsg-export read."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig
from fairseq.tasks.masked_lm import MaskedLMConfig
from omegaconf import OmegaConf
from torch import Tensor

from lsg_fairseq.checkpoints.find import find, find_at
from lsg_fairseq.checkpoints.folder_files import CONVERTED_FILE
from lsg_fairseq.checkpoints.loading import (
    CheckpointFiles,
    Overrides,
    load_task_and_model,
    open_checkpoint,
)
from lsg_fairseq.checkpoints.opened import ORIGINAL_FILE, OpenedCheckpoint
from lsg_fairseq.data.generation_settings import GENERATION_FILE, SETTINGS, check_generation_settings
from lsg_fairseq.data.kept_part import PART_STATE
from lsg_fairseq.data.one_sentence import written_whole
from lsg_fairseq.data.output_folder import check_is_new, staged_output
from lsg_fairseq.modules.lsg_config import FIELD_ALIASES, LSGConfig, LSGError
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig
from lsg_fairseq.tokenizers.fairseq_bpe import DICTIONARY_STATE, dictionary_fingerprint
from lsg_fairseq.weights.families import family_of_arch
from lsg_fairseq.weights.limits import check_number
from lsg_fairseq.weights.state_dicts import check_values

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
            LSGError: also if a weight is NaN or infinite.
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
        LSGError: weights and configuration do not fit, `out` exists, or what was written does not read back as it was.
    """
    source = plan.source
    logger.info(f"converting {source.name}")
    state = plan.state_dict()
    with staged_output(out, must_be_new=True) as staged:
        logger.info(f"writing {out}")
        write_folder(source, plan.args, state, staged)
        logger.info("checking what was written")
        check_folder(state, staged)


# --- the folder: weights, dictionaries, tokenizer and generation settings, and a check of what was written.

DICTIONARY_FILES = ("dict.txt", "dict.source.txt", "dict.target.txt")


def write_folder(source: OpenedCheckpoint, args: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> None:
    """Write all files of a converted checkpoint; `args` are the model's arguments."""
    content = checkpoint_content(args, state)
    part = {} if source.keep_part is None else {PART_STATE: source.keep_part}
    content["task_state"] = {DICTIONARY_STATE: dictionary_fingerprint(source.dictionary), **part}
    with written_whole(folder / CONVERTED_FILE):
        torch.save(content, folder / CONVERTED_FILE)
    write_companions(source, folder)


def checkpoint_content(args: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What fairseq-train would have saved: all of its configuration groups, and no optimizer state."""
    cfg = OmegaConf.to_container(OmegaConf.structured(FairseqConfig()), resolve=True, enum_to_str=True)
    name, task = task_of(args)
    cfg["model"] = {**args, "_name": args["arch"], "task": name}
    cfg["task"] = OmegaConf.to_container(OmegaConf.structured(task), enum_to_str=True, resolve=False) | {"_name": name}
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}
    return {
        "args": None,
        "cfg": cfg,
        "model": dict(state),
        "optimizer_history": [history],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def task_of(args: Mapping[str, Any]) -> tuple[str, FairseqDataclass]:
    """The name and the settings of the task that a model of these arguments is stored with."""
    if not family_of_arch(args["arch"]).has_decoder:
        return "masked_lm", MaskedLMConfig(tokens_per_sample=args["max_positions"])
    return "lsg_summarization", LSGSummarizationConfig(source_lang="source", target_lang="target")


def write_companions(source: OpenedCheckpoint, folder: Path) -> None:
    """Everything beside the weights: dictionaries, tokenizer, sequence format, a decoder's generation settings."""
    for name in DICTIONARY_FILES:
        source.dictionary.save(str(folder / name))
    source.sequence_format.save(folder)
    if source.spec.has_decoder:
        check_generation_settings(source.generation, source.name)
        (folder / GENERATION_FILE).write_text(json.dumps(dict(source.generation), indent=2) + "\n")
    if source.tokenizer is not None:
        (folder / "tokenizer").mkdir()
        source.tokenizer.save(folder / "tokenizer")
    if source.original:
        (folder / ORIGINAL_FILE).write_text(json.dumps(dict(source.original), indent=2) + "\n")


def generation_flags(settings: Mapping[str, Any]) -> list[str]:
    """The settings as words of a fairseq-generate command line."""
    words = []
    for name in SETTINGS:
        value = settings.get(name)
        if value is not None and value is not False:
            words += ["--" + name.replace("_", "-"), *([] if value is True else [str(value)])]
    return words


def check_folder(state: Mapping[str, Tensor], folder: Path) -> None:
    """Read the folder back: its tensors must be those in memory, bit for bit, and make up a model.

    Raises:
        LSGError: they differ, so the disk or the memory is faulty, or do not fit the arguments.
    """
    # Not kept: the file is to be out of memory again before the model is built.
    check_written(state, open_checkpoint(folder / CONVERTED_FILE)["model"])
    tokenizer = folder / "tokenizer"
    if tokenizer.is_dir():
        files = CheckpointFiles(folder / CONVERTED_FILE, folder, tokenizer, is_replaced_as_a_whole=True)
        load_task_and_model(files, Overrides())


def check_written(state: Mapping[str, Tensor], written: Mapping[str, Tensor]) -> None:
    """Compare tensors with those read back, bit for bit.

    Raises:
        LSGError: one is missing, in excess, or another.
    """
    kept = [key for key in state if key in written and torch.equal(written[key], state[key])]
    changed = sorted({*state, *written}.difference(kept))
    if changed:
        raise LSGError(f"{len(changed)} tensors read back differ from those written ({changed[:3]}): check the disk")
