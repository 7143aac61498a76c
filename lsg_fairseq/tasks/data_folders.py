"""The data folder of a task: what is missing from it, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairseq import utils
from fairseq.data import data_utils
from omegaconf import DictConfig

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import read_dictionary
from lsg_fairseq.weights.limits import check_file

DATA_SUFFIXES = (".txt", ".idx", ".bin")
MADE_BY_US = ("train", "valid", "test")


def check_data_folders(data: str | None) -> Path:
    """The first of the data folders (colons between them); each has to be there, not only when its epoch comes.

    Raises:
        LSGError: none is named, one is missing, the first has no dictionary, or another has another one.
    """
    folders = [Path(path) for path in utils.split_paths(data)] if data else []
    if not folders:
        raise LSGError("name the data folder, which lsg-preprocess --out writes, in front of the flags")
    for folder in folders:
        if not folder.is_dir():
            raise LSGError(f"there is no data folder {folder}: make one (lsg-preprocess --out {folder}) or name yours")
        check_files(folder)
    if not any(folders[0].glob("dict.*.txt")):
        raise LSGError(f"{folders[0]} holds no data, as it has no dict.*.txt: make it with lsg-preprocess --out")
    for folder in folders[1:]:
        _check_same_dictionaries(folders[0], folder)
    return folders[0]


def check_files(folder: Path) -> None:
    """See that what is named like a file of data is one: a device would be read for ever.

    Raises:
        LSGError: it is a folder, a device, a pipe, or a link to nothing; or a dictionary is larger than one can be.
    """
    odd = [path for path in sorted(folder.iterdir()) if path.suffix in DATA_SUFFIXES and not path.is_file()]
    if odd:
        raise LSGError(f"{odd[0]} is no file, and data are in files: remove it, or preprocess into another folder")
    for path in folder.glob("dict*.txt"):
        check_file(path)


def name_sides(cfg: DictConfig, folder: Path) -> None:
    """Fill in --source-lang and --target-lang; those of a folder without data (a converted checkpoint) are the usual.

    Raises:
        LSGError: the files' names do not tell.
    """
    if not any(folder.glob("*.*-*.*.idx")) and (folder / "dict.source.txt").is_file():
        cfg.source_lang, cfg.target_lang = cfg.source_lang or "source", cfg.target_lang or "target"
    if None in (cfg.source_lang, cfg.target_lang):
        cfg.source_lang, cfg.target_lang = data_utils.infer_language_pair(str(folder))
    if None in (cfg.source_lang, cfg.target_lang):
        raise LSGError(f"the files of {folder} do not tell its two sides: give --source-lang and --target-lang")


def is_name_of_split(split: str) -> bool:
    """Whether files of a folder can have this name in front: it is no path, and nothing that the system refuses."""
    return bool(split) and not set(split) & {"/", "\0"} and len(split) < 200


def missing_split(folder: Path, split: str) -> LSGError:
    """The error of a split that is not in a folder, with what is there and what to do."""
    if "," in split:
        names = split.split(",")
        return LSGError(f"{split} names {len(names)} splits, and one is read at a time: --gen-subset {names[0]}")
    named = split if is_name_of_split(split) else f"{split!r:.80}"
    found = sorted({path.name.split(".")[0] for path in folder.glob("*.*-*.*.idx")}, key=_usual_order)
    there = f"which has {' and '.join(found)}" if found else "which has none"
    advice = ["name one that is there (--train-subset, --valid-subset, --gen-subset)"] if found else []
    advice += [f"make it: lsg-preprocess --{split} FILE"] if split in MADE_BY_US else []
    return LSGError(f"there is no {named} split in {folder}, {there}; {' or '.join(advice) or 'make one first'}")


@contextmanager
def unchanged_sequences(cfg: DictConfig) -> Iterator[None]:
    """Load data sets as they are: cutting and buckets are for sequences with `<s>` and `</s>`, made afterwards."""
    asked = (cfg.truncate_source, cfg.num_batch_buckets)
    cfg.truncate_source, cfg.num_batch_buckets = False, 0
    try:
        yield
    finally:
        cfg.truncate_source, cfg.num_batch_buckets = asked


def _check_same_dictionaries(first: Path, folder: Path) -> None:
    """fairseq reads the first folder's dictionaries alone: the ids of another vocabulary would be other words."""
    for path in sorted(first.glob("dict.*.txt")):
        other = folder / path.name
        is_same = not other.is_file() or other.read_bytes() == path.read_bytes()
        if not is_same and read_dictionary(other).symbols != read_dictionary(path).symbols:
            raise LSGError(
                f"{folder} has another vocabulary than {first}, with which it is to be read: make it again "
                f"(lsg-preprocess --tokenizer {first / 'tokenizer'})"
            )


def _usual_order(split: str) -> tuple[int, str]:
    return (MADE_BY_US.index(split) if split in MADE_BY_US else len(MADE_BY_US), split)
