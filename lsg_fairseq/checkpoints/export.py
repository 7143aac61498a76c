"""A converted or trained LSG model -> a folder that transformers can load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lsg_fairseq.checkpoints.convert import check_written
from lsg_fairseq.checkpoints.find import HUGGING_FACE, find
from lsg_fairseq.checkpoints.opened import OpenedCheckpoint
from lsg_fairseq.data.one_sentence import written_whole
from lsg_fairseq.data.output_folder import check_is_new, staged_output
from lsg_fairseq.huggingface.config import exported_spec, read_config, write_config
from lsg_fairseq.huggingface.config_fields import unknown_to_hf
from lsg_fairseq.huggingface.seq2seq_weights import convert_to_hf
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import embedding_rows
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.position_tables import tile_positions
from lsg_fairseq.weights.state_dicts import GLOBAL_TABLE, SOURCE_POSITIONS, TARGET_POSITIONS, check_values
from lsg_fairseq.weights.upgrades import LM_HEAD, has_initial_lm_head

WEIGHTS_FILE = "model.safetensors"


def export_checkpoint(
    source: str | Path,
    out: str | Path,
    short: bool = False,
    tokenizer: str | Path | None = None,
    half: bool = False,
) -> list[str]:
    """Write the new folder `out` for transformers and read it back; returns what is worth knowing about it.

    Args:
        source: a converted folder, a training folder, or a fairseq checkpoint file with its tokenizer beside it.
        short: write a plain BART, Pegasus, BERT or the like, with full attention and no global tokens. Its position
            tables are cut to the original's length where all further rows repeat it: where training left them alone.
        tokenizer: folder with the tokenizer files, if they are elsewhere.
        half: write the weights as float16.

    Raises:
        LSGError: `out` exists, the source is not an LSG model that transformers could hold, or a weight does not fit
            into float16; nothing is written then.
    """
    check_is_new(out)
    opened = open_exportable(source, tokenizer)
    state, spec, lines = adapt(opened, short)
    check_values(state, opened.name)
    rows = embedding_rows(opened.tokenizer, opened.dictionary)[: spec.vocab_size]
    # Pegasus' dictionary has its own <pad>, which Hugging Face's vocabulary is without.
    spec = replace(spec, vocab_size=len(rows))
    tensors = convert_to_hf(state, spec, None if torch.equal(rows, torch.arange(len(opened.dictionary))) else rows)
    tensors = halve(tensors) if half else tensors
    config = config_of(opened, spec, tensors, rows)
    with staged_output(out, must_be_new=True) as staged:
        opened.tokenizer.save(staged, with_rows=False)
        contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
        with written_whole(staged / WEIGHTS_FILE):
            save_file(contiguous, staged / WEIGHTS_FILE, {"format": "pt"})
        # Over the tokenizer's config.json, if it has one: the model's says what that says.
        write_json_files(opened, config, staged)
        check_written(tensors, load_file(staged / WEIGHTS_FILE))
    return lines


def open_exportable(source: str | Path, tokenizer: str | Path | None) -> OpenedCheckpoint:
    """Open a fairseq checkpoint and its tokenizer.

    Raises:
        LSGError: there is none, or it comes without a tokenizer.
    """
    found = find(source)
    if found.format is HUGGING_FACE:
        raise LSGError(f"{source} is a Hugging Face checkpoint already: give a model.pt, or a folder with one")
    opened = found.open(tokenizer)
    if opened.tokenizer is None:
        raise LSGError(f"{opened.name} has no tokenizer beside it or with its data: name one with --tokenizer")
    return opened


def adapt(source: OpenedCheckpoint, short: bool) -> tuple[dict[str, Tensor], ModelSpec, list[str]]:
    """The weights and spec that are exported, and sentences about what was left out or changed."""
    state, spec, lines = dict(source.weights()), source.spec, []
    spec = exported_spec(spec, source.args, source.original.get("config"))
    if not spec.has_decoder:
        state, lines = without_untrained_head(state)
    if short:
        state, spec, more = make_short(state, spec, source.original.get("config"))
        return state, spec, lines + more
    return state, spec, lines + unknown_to_hf(source.args)


def make_short(
    state: Mapping[str, Tensor], spec: ModelSpec, original: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], ModelSpec, list[str]]:
    """Take out the global table, and cut the position tables if nothing is lost; also returns sentences about it."""
    kept = {key: tensor for key, tensor in state.items() if key != spec.encoder_key(GLOBAL_TABLE)}
    spec = replace(spec, is_lsg=False)
    length = read_config(original)[0].max_source_positions if original else 0
    names = (SOURCE_POSITIONS, TARGET_POSITIONS) if spec.has_decoder else (spec.encoder_key(SOURCE_POSITIONS),)
    tables = {key: kept[key] for key in names}
    if not length or not all(repeats_after(table, spec, length) for table in tables.values()):
        return kept, spec, [f"all {max(spec.max_source_positions, spec.max_target_positions):,} positions are kept"]
    kept |= {key: table[: spec.position_offset + length].clone() for key, table in tables.items()}
    lengths = {"max_source_positions": length, "max_target_positions": length if spec.has_decoder else 0}
    return kept, replace(spec, **lengths), []


def without_untrained_head(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Leave out a masked-LM head that was made here and never trained; also returns a sentence about it."""
    if not has_initial_lm_head(state):
        return state, []
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(LM_HEAD)}
    return kept, ["the masked-LM head was never trained and is left out"]


def halve(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as float16.

    Raises:
        LSGError: a value is beyond its range.
    """
    halves = {key: tensor.half() for key, tensor in tensors.items()}
    beyond = [key for key, tensor in halves.items() if not torch.equal(tensor.isfinite(), tensors[key].isfinite())]
    if beyond:
        largest = max(float(tensors[key].abs().max()) for key in beyond)
        raise LSGError(
            f"{beyond[0]} has a value of {largest:g}, and float16 ends at {torch.finfo(torch.float16).max:g}: export "
            "it without --half"
        )
    return halves


def repeats_after(table: Tensor, spec: ModelSpec, length: int) -> bool:
    """Whether positions from `length` on add nothing: learned ones repeat the first, Pegasus' are computed."""
    positions = table[spec.position_offset :]
    if len(positions) < length:
        return False
    return not spec.row.learned_positions or torch.equal(positions, tile_positions(positions[:length], len(positions)))


def config_of(
    source: OpenedCheckpoint, spec: ModelSpec, tensors: Mapping[str, Tensor], rows: Tensor
) -> dict[str, object]:
    """The config.json for the tensors; `rows` (V,) are the dictionary rows of Hugging Face's embedding rows."""
    token_ids = spec.row.token_ids
    if not spec.has_decoder:
        ids, dictionary = rows.tolist(), source.dictionary
        own = {"bos_token_id": dictionary.bos(), "pad_token_id": dictionary.pad(), "eos_token_id": dictionary.eos()}
        token_ids = {name: ids.index(own[name]) for name in token_ids}
    return write_config(source.args, spec, tensors, token_ids, source.original.get("config"))


def write_json_files(source: OpenedCheckpoint, config: Mapping[str, object], folder: Path) -> None:
    """config.json, and generation_config.json if the model came with one."""
    files = {"config.json": config}
    if source.original.get("generation_config"):
        files["generation_config.json"] = source.original["generation_config"]
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
