"""A checkpoint -> files that can be loaded as they are: its own, or those of a cached conversion."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from filelock import FileLock

from lsg_fairseq.checkpoints.build_task import is_lsg_architecture
from lsg_fairseq.checkpoints.convert import plan_conversion, write_conversion
from lsg_fairseq.checkpoints.find import FAIRSEQ, Found, find, find_at
from lsg_fairseq.checkpoints.folder_files import (
    CONVERTED_FILE,
    find_tokenizer,
    missing_tokenizer,
)
from lsg_fairseq.checkpoints.loading import CheckpointFiles, model_arguments, open_checkpoint, training_arguments
from lsg_fairseq.data.generation_settings import read_generation_settings
from lsg_fairseq.data.output_folder import check_is_no_link
from lsg_fairseq.huggingface.config import read_config
from lsg_fairseq.huggingface.download import download_config
from lsg_fairseq.huggingface.read_folder import read_json
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import ALL_FILES
from lsg_fairseq.weights.families import STOCK_ARCHITECTURES, Family, family_of_arch

# Part of the key of a conversion's result; count up when the same input is converted to something else.
CONVERSION_VERSION = 2
SMALL = 100_000_000  # bytes, hashed in a fraction of a second


@dataclass(frozen=True)
class CheckpointOptions:
    """What decides, beside the checkpoint's name, which files are used."""

    family: str | None = None
    tokenizer: str | Path | None = None
    revision: str | None = None
    max_source_positions: int | None = None


def find_checkpoint(
    checkpoint: str | Path, options: CheckpointOptions, entries: Mapping[str, str] = MappingProxyType({})
) -> CheckpointFiles:
    """The files of whatever find.find resolves.

    Raises:
        LSGError: there is nothing of that name, it is not complete, or it is another family's.
    """
    found = find(checkpoint, options.revision, entries)
    options = _with_needed_length(found, options)
    if found.revision is not None:
        return _converted(found, found.revision.hub_id, found.revision.commit, options)
    if found.format is FAIRSEQ:
        return _files_of_model(found, options)
    return _converted(found, found.path.resolve().name, _fingerprint(found.path.iterdir()), options)


def _with_needed_length(found: Found, options: CheckpointOptions) -> CheckpointOptions:
    """Ignore a length that an LSG checkpoint already has: documents are cut when it is loaded."""
    asked = options.max_source_positions
    if asked is None or found.format is FAIRSEQ:
        return options
    folder = found.path if found.revision is None else download_config(found.revision)
    spec = read_config(read_json(folder / "config.json"))[0]
    is_there = spec.is_lsg and asked <= spec.max_source_positions
    return replace(options, max_source_positions=None) if is_there else options


def cache_folder() -> Path:
    """Where converted checkpoints are kept: beside what torch.hub keeps, so that TORCH_HOME moves both."""
    return Path(torch.hub.get_dir()) / "lsg_fairseq"


def _files_of_model(found: Found, options: CheckpointOptions) -> CheckpointFiles:
    """A fairseq checkpoint: used as it is if its model is an LSG one, else converted."""
    path = found.path
    state = open_checkpoint(path)
    args, task = model_arguments(state), training_arguments(state)
    if is_lsg_architecture(args) or args.arch in STOCK_ARCHITECTURES:
        check_family(family_of_arch(args.arch), path, options.family)
    folders = find_tokenizer(path, options.tokenizer, task)
    if folders is None:
        raise LSGError(missing_tokenizer(path, options.tokenizer, task))
    tokenizer, vocabulary = folders
    if args.arch in STOCK_ARCHITECTURES:
        fingerprint = _fingerprint([path, *path.parent.glob("dict*.txt")])
        return _converted(found, path.resolve().name, fingerprint, replace(options, tokenizer=tokenizer))
    return CheckpointFiles(
        model=path,
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        generation=read_generation_settings(path.parent),
        is_replaced_as_a_whole=path.name == CONVERTED_FILE,
    )


def _converted(found: Found, name: str, fingerprint: str, options: CheckpointOptions) -> CheckpointFiles:
    """The result of converting a checkpoint, made now unless it was made before.

    Args:
        name: what the user calls it, for the folder's name.
        fingerprint: changes whenever its content does.
    """
    folder = cache_folder() / _key(name, fingerprint, options)
    with _locked(folder):
        if not _is_whole(folder / CONVERTED_FILE):
            _convert(found.local(), folder, options)
    return _files_of_model(find_at(folder), CheckpointOptions(family=options.family))


def _is_whole(model: Path) -> bool:
    """Whether a converted file is there and can be read; one that was cut is made again."""
    try:
        open_checkpoint(model)
    except (LSGError, FileNotFoundError):
        return False
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder of the cache; a second process waits here for the first one's result.

    Raises:
        LSGError: the cache cannot be written.
    """
    check_is_no_link(Path(f"{folder}.lock"))
    lock = FileLock(f"{folder}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise LSGError(
            f"a checkpoint has to be converted, and {folder.parent} cannot be written ({error.strerror}): set "
            "TORCH_HOME to a folder that can"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _key(name: str, fingerprint: str, options: CheckpointOptions) -> str:
    tokenizer = _tokenizer_fingerprint(options.tokenizer) if options.tokenizer else ""
    parts = [CONVERSION_VERSION, name, fingerprint, tokenizer, options.max_source_positions]
    readable = re.sub(r"[^\w.-]+", "--", name)[-80:]
    return f"{readable}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]}"


def _tokenizer_fingerprint(folder: str | Path) -> str:
    """A tokenizer is what its files hold: two projects may give theirs one name, and files are edited in place."""
    files = [Path(folder).expanduser() / name for name in ALL_FILES]
    return hashlib.sha256(json.dumps([[f.name, _hash(f)] for f in files if f.is_file()]).encode()).hexdigest()


def _convert(source: Path, folder: Path, options: CheckpointOptions) -> None:
    plan, asked = plan_conversion(source, tokenizer=options.tokenizer), options.max_source_positions
    check_family(plan.source.spec.row, source, options.family)
    # Left by a process that was killed; nobody else is here, as the lock is ours.
    for left in folder.parent.glob(f".{folder.name}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    if asked is not None and asked > plan.source.spec.max_source_positions:
        plan = plan_conversion(source, asked, tokenizer=options.tokenizer)
    write_conversion(plan, folder)


def _fingerprint(paths: Iterable[Path]) -> str:
    """What a checkpoint is, as far as its conversion depends on it: the content of small files; where large ones are.

    Small checkpoints are copied often (one is in this package): a copy is not converted again, nor taken for another,
    even where a package manager sets times. Large files take too long to read, so their path, size and times stand for
    them, among these the inode's change time, which nobody can set.
    """
    files = [path for path in sorted(paths) if path.is_file() and path.suffix != ".md"]
    described: list[list[object]] = []
    for path in files:
        stat = path.stat()
        if stat.st_size <= SMALL:
            described.append([path.name, _hash(path)])
        else:
            described.append([path.name, str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_family(family: Family, checkpoint: Path, wanted: str | None) -> None:
    """Refuse another family's checkpoint in an entry.

    Raises:
        LSGError: the families differ.
    """
    if wanted is not None and family.name != wanted:
        raise LSGError(f"{checkpoint} is a {family.name} checkpoint: load it with {family.entries} instead")
