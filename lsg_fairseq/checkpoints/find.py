"""What a user calls a checkpoint -> its files: a path first, then a Hugging Face hub id; converted once if need be."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from lsg_fairseq.checkpoints.architectures import is_lsg_architecture
from lsg_fairseq.checkpoints.folder_files import CONVERTED_FILE, HUB_ID, TRAINED_FILES, read_generation_settings
from lsg_fairseq.checkpoints.loading import CheckpointFiles, model_arguments, open_checkpoint, task_arguments
from lsg_fairseq.huggingface.config import model_type_of, read_config
from lsg_fairseq.huggingface.read_folder import read_json
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import ALL_FILES
from lsg_fairseq.tokenizers.fairseq_bpe import has_tokenizer
from lsg_fairseq.weights.families import MODEL_TYPES, Family, family_of_arch

# Part of the key of a conversion's result; count up when the same input is converted to something else.
CONVERSION_VERSION = 2
SMALL = 100_000_000  # bytes, hashed in a fraction of a second


@dataclass(frozen=True)
class SourceOptions:
    """What decides, beside the checkpoint's name, which files are used."""

    family: str | None = None
    tokenizer: str | Path | None = None
    revision: str | None = None
    max_source_positions: int | None = None


def find_checkpoint(checkpoint: str | Path, options: SourceOptions) -> CheckpointFiles:
    """Resolve a path (Hugging Face folder, converted folder, training folder, fairseq checkpoint file) or a hub id.

    Raises:
        LSGError: there is nothing of that name, it is not complete, or it is another family's.
    """
    path = Path(checkpoint).expanduser()
    if path.exists():
        if options.revision is not None:
            raise LSGError(f"revision={options.revision!r} has no meaning for {path}, which is a path: leave it out")
        files = _files_of_path(path, options)
    elif HUB_ID.fullmatch(str(checkpoint)) and path.suffix != ".pt":
        files = _files_of_hub_id(str(checkpoint), options)
    else:
        raise LSGError(
            f"{checkpoint} does not exist: give a Hugging Face folder, a converted folder, a training folder, a "
            "fairseq model.pt, or a hub id such as ccdv/lsg-bart-base-4096"
        )
    return files


def cache_folder() -> Path:
    """Where converted checkpoints are kept: beside what torch.hub keeps, so that TORCH_HOME moves both."""
    return Path(torch.hub.get_dir()) / "lsg_fairseq"


def _files_of_path(path: Path, options: SourceOptions) -> CheckpointFiles:
    if path.is_file():
        return _files_of_model(path, options)
    for name in (CONVERTED_FILE, *TRAINED_FILES):
        if (path / name).is_file():
            return _files_of_model(path / name, options)
    if (path / "config.json").is_file():
        return _converted(path, _fingerprint(path.iterdir()), _with_needed_length(path, options))
    raise LSGError(
        f"{path} holds no checkpoint: a folder needs config.json (Hugging Face), {CONVERTED_FILE} (converted), or "
        f"{' or '.join(TRAINED_FILES)} (trained)"
    )


def _with_needed_length(folder: Path, options: SourceOptions) -> SourceOptions:
    """A length that an LSG checkpoint has is no other conversion: its documents are cut when it is loaded."""
    asked = options.max_source_positions
    spec = read_config(read_json(folder / "config.json"))[0] if asked is not None else None
    if spec is not None and spec.is_lsg and asked <= spec.max_source_positions:
        return replace(options, max_source_positions=None)
    return options


def _files_of_model(path: Path, options: SourceOptions) -> CheckpointFiles:
    """A fairseq checkpoint: used as it is if its model is an LSG one, else converted."""
    state = open_checkpoint(path)
    args = model_arguments(state)
    arch = args.arch
    check_family(family_of_arch(arch), path, options.family)
    tokenizer, vocabulary = _find_tokenizer(path, options.tokenizer, _data_folders(path, state))
    if not arch.startswith("lsg_") and not is_lsg_architecture(args):
        fingerprint = _fingerprint([path, *path.parent.glob("dict*.txt")])
        return _converted(path, fingerprint, replace(options, tokenizer=tokenizer))
    return CheckpointFiles(
        model=path,
        vocabulary=vocabulary,
        tokenizer=tokenizer,
        generation=read_generation_settings(path.parent),
        is_never_overwritten=path.name == CONVERTED_FILE,
    )


def _data_folders(model: Path, state: Mapping[str, Any]) -> list[Path]:
    """Where the checkpoint's data folder may be; a relative path says so from where the training was started.

    That is where the stored --save-dir leads to the checkpoint; else the checkpoint's folder or the one above it. The
    present working directory has nothing to do with it: another project may have a folder of that name.
    """
    stored = task_arguments(state).get("data")
    data = Path(stored.split(":")[0]) if isinstance(stored, str) and stored else None
    if data is None or data.is_absolute():
        return [data] if data else []
    folder = model.resolve().parent
    save_dir = Path(str(_group(state, "checkpoint").get("save_dir") or "checkpoints"))
    steps = [step for step in save_dir.parts if step != "."]
    if not save_dir.is_absolute() and ".." not in steps and folder.parts[-len(steps) :] == tuple(steps):
        return [Path(*folder.parts[: -len(steps)]) / data]
    return [folder / data, folder.parent / data]


def _group(state: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    group = (state.get("cfg") or {}).get(name) or state.get("args") or {}
    return vars(group) if isinstance(group, Namespace) else group


def _find_tokenizer(model: Path, tokenizer: str | Path | None, data: list[Path]) -> tuple[Path, Path]:
    """The folders of tokenizer and vocabulary: the user's, those beside the checkpoint, or those of its data folder."""
    homes = [model.parent, *data]
    folders = [home / "tokenizer" for home in homes]
    if tokenizer is not None:
        given = Path(tokenizer).expanduser()
        folders = [given, given / "tokenizer"]
        homes = [model.parent, given, given.parent, *homes[1:]]
    for folder in folders:
        if has_tokenizer(folder):
            vocabularies = [home for home in (folder.parent, *homes) if _has_dictionary(home)]
            return folder, next(iter(vocabularies), folder)
    looked = ", ".join(map(str, folders))
    raise LSGError(f"{model} comes without a tokenizer (looked in {looked}): give its folder as tokenizer=")


def _has_dictionary(folder: Path) -> bool:
    """Whether the folder is data of fairseq; sentence_prediction keeps the dictionary of its texts in input0."""
    return any(folder.glob("dict*.txt")) or (folder / "input0" / "dict.txt").is_file()


def _files_of_hub_id(hub_id: str, options: SourceOptions) -> CheckpointFiles:
    from lsg_fairseq.huggingface.download import download_checkpoint, download_config, find_revision

    revision = find_revision(hub_id, options.revision)
    if options.max_source_positions is not None:
        options = _with_needed_length(download_config(revision), options)
    return _converted(hub_id, revision.commit, options, lambda: download_checkpoint(revision))


def _converted(
    source: str | Path, fingerprint: str, options: SourceOptions, fetch: Callable[[], Path] | None = None
) -> CheckpointFiles:
    """The result of converting `source`, made now unless it was made before.

    Args:
        fingerprint: changes whenever the source's content does.
        fetch: brings the source here if it is not, and returns its path.
    """
    folder = cache_folder() / _key(source, fingerprint, options)
    with _locked(folder):
        if not _is_whole(folder / CONVERTED_FILE):
            _convert(fetch() if fetch else Path(source), folder, options)
    return _files_of_model(folder / CONVERTED_FILE, SourceOptions(family=options.family))


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


def _key(source: str | Path, fingerprint: str, options: SourceOptions) -> str:
    name = source if isinstance(source, str) else source.resolve().name
    tokenizer = _tokenizer_fingerprint(options.tokenizer) if options.tokenizer else ""
    parts = [CONVERSION_VERSION, name, fingerprint, tokenizer, options.max_source_positions]
    readable = re.sub(r"[^\w.-]+", "--", name)[-80:]
    return f"{readable}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]}"


def _tokenizer_fingerprint(folder: str | Path) -> str:
    """A tokenizer is what its files hold: two projects may give theirs one name, and files are edited in place."""
    files = [Path(folder).expanduser() / name for name in ALL_FILES]
    return hashlib.sha256(json.dumps([[f.name, _hash(f)] for f in files if f.is_file()]).encode()).hexdigest()


def _convert(source: Path, folder: Path, options: SourceOptions) -> None:
    from lsg_fairseq.checkpoints.convert import plan_conversion, write_conversion

    if (source / "config.json").is_file():
        config = read_json(source / "config.json")
        check_family(MODEL_TYPES[model_type_of(config)][0], source, options.family)
    # Left by a process that was killed; nobody else is here, as the lock is ours.
    for left in folder.parent.glob(f".{folder.name}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    plan, asked = plan_conversion(source, tokenizer=options.tokenizer), options.max_source_positions
    if asked is not None and asked > plan.source.spec.max_source_positions:
        plan = plan_conversion(source, asked, tokenizer=options.tokenizer)
    write_conversion(plan, folder)


def _fingerprint(paths: Iterable[Path]) -> str:
    """What a checkpoint is, as far as its conversion depends on it: the content of small files; where large ones are.

    A small checkpoint is installed and copied often (one is in this package): no copy is converted anew, and none is
    taken for another, even where times are set, as package managers do. To read a large one would take too long, so its
    path, size and times stand for it: the time of the last change, too, which nobody sets.
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
