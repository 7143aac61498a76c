"""Checks of a task's data: what is missing from a folder, a split or a batch is reported in one sentence."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairseq import utils
from fairseq.data import LanguagePairDataset, data_utils
from fairseq.search import LexicallyConstrainedBeamSearch
from omegaconf import DictConfig

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import read_dictionary
from lsg_fairseq.weights.limits import check_file

DATA_SUFFIXES = (".txt", ".idx", ".bin")
# The splits that lsg-preprocess makes.
MADE_BY_US = ("train", "valid", "test")
REMEDY = "preprocess them again from records with a summary (lsg-preprocess --summary-field)"


def check_data_folders(data: str | None) -> Path:
    """Check all data folders (separated by colons) before the training, not only when their epoch comes.

    Returns:
        The first folder.

    Raises:
        LSGError: no folder is given, one is missing, the first has no dictionary, or another has a different one.
    """
    folders = [Path(path) for path in utils.split_paths(data)] if data else []
    if not folders:
        raise LSGError("no data folder is given: put the folder that lsg-preprocess --out wrote in front of the flags")
    for folder in folders:
        if not folder.is_dir():
            raise LSGError(f"the data folder {folder} does not exist: make it with lsg-preprocess --out {folder}")
        check_files(folder)
    if not any(folders[0].glob("dict.*.txt")):
        raise LSGError(f"{folders[0]} is not a data folder, as it has no dict.*.txt: make it with lsg-preprocess --out")
    for folder in folders[1:]:
        _check_same_dictionaries(folders[0], folder)
    return folders[0]


def check_files(folder: Path) -> None:
    """Check that everything named like a data file is a regular file: reading a device would never end.

    Raises:
        LSGError: one is a folder, a device, a pipe or a broken link; or a dictionary is too large.
    """
    odd = [path for path in sorted(folder.iterdir()) if path.suffix in DATA_SUFFIXES and not path.is_file()]
    if odd:
        raise LSGError(f"{odd[0]} is not a regular file: remove it, or preprocess into another folder")
    for path in folder.glob("dict*.txt"):
        check_file(path)


def name_sides(cfg: DictConfig, folder: Path) -> None:
    """Fill in --source-lang and --target-lang from the names of the data files.

    For a folder without data (a converted checkpoint) they are "source" and "target".

    Raises:
        LSGError: the names of the files do not tell.
    """
    if not any(folder.glob("*.*-*.*.idx")) and (folder / "dict.source.txt").is_file():
        cfg.source_lang, cfg.target_lang = cfg.source_lang or "source", cfg.target_lang or "target"
    if None in (cfg.source_lang, cfg.target_lang):
        cfg.source_lang, cfg.target_lang = data_utils.infer_language_pair(str(folder))
    if None in (cfg.source_lang, cfg.target_lang):
        raise LSGError(
            f"the two sides of the data cannot be told from the file names in {folder}: give --source-lang and "
            "--target-lang"
        )


def is_name_of_split(split: str) -> bool:
    """Whether file names can begin with this name: it is no path, and the system allows it."""
    return bool(split) and not set(split) & {"/", "\0"} and len(split) < 200


def missing_split(folder: Path, split: str) -> LSGError:
    """The error for a split that is not in a folder: it names the splits that are, and what to do."""
    if "," in split:
        names = split.split(",")
        return LSGError(f"{split} names {len(names)} splits, but only one can be read: --gen-subset {names[0]}")
    named = split if is_name_of_split(split) else f"{split!r:.80}"
    found = sorted({path.name.split(".")[0] for path in folder.glob("*.*-*.*.idx")}, key=_usual_order)
    there = f"which has {' and '.join(found)}" if found else "which has none"
    advice = ["choose one of these (--train-subset, --valid-subset, --gen-subset)"] if found else []
    advice += [f"make it: lsg-preprocess --{split} FILE"] if split in MADE_BY_US else []
    return LSGError(f"there is no {named} split in {folder}, {there}; {' or '.join(advice) or 'make one first'}")


@contextmanager
def unchanged_sequences(cfg: DictConfig) -> Iterator[None]:
    """Switch off cutting and length buckets while fairseq loads a dataset: both are meant for sequences with `<s>` and
    `</s>`, which are added afterwards."""
    asked = (cfg.truncate_source, cfg.num_batch_buckets)
    cfg.truncate_source, cfg.num_batch_buckets = False, 0
    try:
        yield
    finally:
        cfg.truncate_source, cfg.num_batch_buckets = asked


def _check_same_dictionaries(first: Path, folder: Path) -> None:
    """fairseq reads only the first folder's dictionaries: with a different vocabulary, ids would be other words."""
    for path in sorted(first.glob("dict.*.txt")):
        other = folder / path.name
        is_same = not other.is_file() or other.read_bytes() == path.read_bytes()
        if not is_same and read_dictionary(other).symbols != read_dictionary(path).symbols:
            raise LSGError(
                f"the vocabulary of {folder} differs from that of {first}, the first data folder: make it again "
                f"(lsg-preprocess --tokenizer {first / 'tokenizer'})"
            )


def _usual_order(split: str) -> tuple[int, str]:
    return (MADE_BY_US.index(split) if split in MADE_BY_US else len(MADE_BY_US), split)


def require_summaries(sample: Mapping[str, Any]) -> None:
    """Refuse a batch without summaries; an empty batch passes, as fairseq uses it to keep workers in step."""
    if sample and sample.get("target") is None:
        raise LSGError(f"these documents have no summaries, but training and validation need them: {REMEDY}")


def require_summaries_for(args: Namespace | DictConfig, datasets: Mapping[str, LanguagePairDataset]) -> None:
    """Refuse generation settings that read summaries if a split has none."""
    flags = [name for name in ("prefix_size", "score_reference") if getattr(args, name, None)]
    without = [split for split, dataset in datasets.items() if getattr(dataset, "tgt", None) is None]
    if flags and without:
        names = " and ".join("--" + flag.replace("_", "-") for flag in flags)
        raise LSGError(f"{names} needs summaries, but the documents of {' and '.join(without)} have none: {REMEDY}")


def require_hard_alignment(alignment: str | None) -> None:
    """Refuse soft alignments in fairseq-interactive, which prints only pairs of positions."""
    if alignment == "soft" and Path(sys.argv[0]).name == "fairseq-interactive":
        raise LSGError(
            "fairseq-interactive prints only hard alignments: use --print-alignment hard, or fairseq-generate"
        )


def require_constraints(generator: Any, constraints: Any) -> None:
    """Refuse --constraints in a command that reads binarized data, which contain none."""
    if constraints is None and isinstance(getattr(generator, "search", None), LexicallyConstrainedBeamSearch):
        raise LSGError(
            "--constraints works only in fairseq-interactive: each input line is a document and its constraints, "
            "separated by tabs"
        )
