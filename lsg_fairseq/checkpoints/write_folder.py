"""Writes the folder of a converted checkpoint (weights, dictionaries, tokenizer, generation settings) and checks it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig
from fairseq.tasks.masked_lm import MaskedLMConfig
from omegaconf import OmegaConf
from torch import Tensor

from lsg_fairseq.checkpoints.folder_files import CONVERTED_FILE, GENERATION_FILE
from lsg_fairseq.checkpoints.loading import (
    CheckpointFiles,
    Overrides,
    load_task_and_model,
    open_checkpoint,
)
from lsg_fairseq.checkpoints.opened import ORIGINAL_FILE, OpenedCheckpoint
from lsg_fairseq.data.generation_settings import SETTINGS, check_generation_settings
from lsg_fairseq.data.kept_part import PART_STATE
from lsg_fairseq.data.one_sentence import written_whole
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig
from lsg_fairseq.tokenizers.fairseq_bpe import DICTIONARY_STATE, dictionary_fingerprint
from lsg_fairseq.weights.families import family_of_arch

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
    changed = changed_tensors(state, folder / CONVERTED_FILE)
    if changed:
        raise LSGError(f"{len(changed)} tensors read back differ from those written ({changed[:3]}): check the disk")
    tokenizer = folder / "tokenizer"
    if tokenizer.is_dir():
        files = CheckpointFiles(folder / CONVERTED_FILE, folder, tokenizer, is_replaced_as_a_whole=True)
        load_task_and_model(files, Overrides())


def changed_tensors(state: Mapping[str, Tensor], path: Path) -> list[str]:
    """The names that a written checkpoint lacks, has in excess, or holds something else for.

    A function of its own, so that the file is out of memory again before the model is built.
    """
    written = open_checkpoint(path)["model"]
    kept = [key for key in state if key in written and torch.equal(written[key], state[key])]
    return sorted({*state, *written}.difference(kept))
