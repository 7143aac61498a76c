"""A converted or trained LSG model -> a folder that transformers can load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lsg_fairseq.checkpoints.convert import check_is_new
from lsg_fairseq.checkpoints.convert_source import Source
from lsg_fairseq.checkpoints.fairseq_source import read_fairseq_source
from lsg_fairseq.checkpoints.folder_files import CONVERTED_FILE, TRAINED_FILES
from lsg_fairseq.checkpoints.hf_config import ModelSpec
from lsg_fairseq.checkpoints.hf_export_config import hf_config_from_args
from lsg_fairseq.checkpoints.position_tables import tile_positions
from lsg_fairseq.checkpoints.state_dicts import GLOBAL_TABLE, SOURCE_POSITIONS, TARGET_POSITIONS
from lsg_fairseq.conversion import convert_to_hf
from lsg_fairseq.data.output_folder import written_aside
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenization import embedding_rows

WEIGHTS_FILE = "model.safetensors"


def export_checkpoint(
    source: str | Path, out: str | Path, short: bool = False, tokenizer: str | Path | None = None
) -> list[str]:
    """Write the new folder `out` for transformers and read it back; returns what is worth knowing about it.

    Args:
        source: a converted folder, a training folder, or a fairseq checkpoint file with its tokenizer beside it.
        short: write a plain BART or Pegasus, which attends in full and has no global tokens. Its position tables are
            cut to the original's length where all further rows repeat it, that is where training has not changed them.
        tokenizer: folder with the tokenizer files, if they are elsewhere.

    Raises:
        LSGError: `out` exists, or the source is no LSG model that transformers could hold; nothing is written then.
    """
    check_is_new(out)
    opened = read_fairseq_source(find_model(Path(source).expanduser()), tokenizer)
    if opened.tokenizer is None:
        raise LSGError(f"{opened.name} has no tokenizer folder beside it: name one with --tokenizer")
    state, spec, lines = dict(opened.weights), opened.spec, []
    if short:
        state, spec, lines = make_short(state, spec, opened.original.get("config") or {})
    rows = embedding_rows(opened.tokenizer, opened.dictionary)[: spec.vocab_size]
    # Pegasus' dictionary has its own <pad>, which Hugging Face's vocabulary is without.
    spec = replace(spec, vocab_size=len(rows))
    tensors = convert_to_hf(state, spec, None if torch.equal(rows, torch.arange(len(opened.dictionary))) else rows)
    with written_aside(out) as aside:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, aside / WEIGHTS_FILE, {"format": "pt"})
        write_json_files(opened, spec, any(key.startswith("classification_heads.") for key in state), aside)
        for path in opened.tokenizer.files:
            shutil.copyfile(path, aside / path.name)
        check_written(tensors, aside / WEIGHTS_FILE)
    return lines


def find_model(path: Path) -> Path:
    """The checkpoint file that a path stands for.

    Raises:
        LSGError: there is none.
    """
    candidates = [path, *(path / name for name in (CONVERTED_FILE, *TRAINED_FILES))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise LSGError(f"{path} has no checkpoint: give a model.pt, or a folder with one or with checkpoint_best.pt")


def make_short(
    state: Mapping[str, Tensor], spec: ModelSpec, original: Mapping[str, Any]
) -> tuple[dict[str, Tensor], ModelSpec, list[str]]:
    """Take the global table out, and cut the position tables if nothing is lost; returns sentences about it as well."""
    kept = {key: tensor for key, tensor in state.items() if key != GLOBAL_TABLE}
    spec = replace(spec, is_lsg=False)
    length = original.get("max_position_embeddings")
    tables = {key: kept[key] for key in (SOURCE_POSITIONS, TARGET_POSITIONS)}
    if not length or not all(repeats_after(table, spec, length) for table in tables.values()):
        return kept, spec, [f"all {max(spec.max_source_positions, spec.max_target_positions):,} positions are kept"]
    kept |= {key: table[: spec.position_offset + length].clone() for key, table in tables.items()}
    return kept, replace(spec, max_source_positions=length, max_target_positions=length), []


def repeats_after(table: Tensor, spec: ModelSpec, length: int) -> bool:
    """Whether the first `length` positions say everything: BART's further rows repeat them, Pegasus' are computed."""
    positions = table[spec.position_offset :]
    if len(positions) < length:
        return False
    return spec.family == "pegasus" or torch.equal(positions, tile_positions(positions[:length], len(positions)))


def write_json_files(source: Source, spec: ModelSpec, has_head: bool, folder: Path) -> None:
    """config.json, and generation_config.json if the model came with one."""
    original = source.original.get("config")
    files = {"config.json": hf_config_from_args(source.args, spec, original, has_head)}
    if source.original.get("generation_config"):
        files["generation_config.json"] = source.original["generation_config"]
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_written(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Read the weights back and compare them bit for bit.

    Raises:
        LSGError: they differ, so the disk is faulty.
    """
    with safe_open(path, framework="pt") as written:
        changed = [key for key, tensor in tensors.items() if not torch.equal(written.get_tensor(key), tensor)]
    if changed:
        raise LSGError(f"{len(changed)} tensors read back differ from those written ({changed[:3]}): check the disk")
