"""Resolves what a user calls a checkpoint (an entry, a path or a hub id), and says which format it has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lsg_fairseq.checkpoints.folder_files import CONVERTED_FILE, TRAINED_FILES
from lsg_fairseq.checkpoints.open_fairseq import open_fairseq
from lsg_fairseq.checkpoints.open_huggingface import open_huggingface
from lsg_fairseq.checkpoints.opened import OpenedCheckpoint
from lsg_fairseq.huggingface.download import Revision, download_checkpoint, find_revision
from lsg_fairseq.huggingface.folder_kinds import describe_foreign, names_in
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import check_name

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Format:
    """A format of checkpoints.

    `locate` returns the file or folder of this format that a path stands for, None where there is none; `open` reads
    it, with another tokenizer folder than its own if one is given.
    """

    name: str
    locate: Callable[[Path], Path | None]
    open: Callable[[Path, str | Path | None], OpenedCheckpoint]


def _fairseq_file(path: Path) -> Path | None:
    """A file, or what lsg-convert or fairseq-train left in a folder."""
    files = (path, *(path / name for name in (CONVERTED_FILE, *TRAINED_FILES)))
    return next((file for file in files if file.is_file()), None)


def _hugging_face_folder(path: Path) -> Path | None:
    return path if (path / "config.json").is_file() else None


FAIRSEQ = Format("fairseq", _fairseq_file, open_fairseq)
HUGGING_FACE = Format("Hugging Face", _hugging_face_folder, open_huggingface)
# The first that a path has.
FORMATS = (FAIRSEQ, HUGGING_FACE)


@dataclass(frozen=True)
class Found:
    """A checkpoint: `path` as its format's `open` takes it, or a hub's `revision`, which is not downloaded yet."""

    format: Format
    path: Path | None = None
    revision: Revision | None = None

    def local(self) -> Path:
        """Where it is on this machine; downloads it if need be."""
        return self.path or download_checkpoint(self.revision)

    def open(self, tokenizer: str | Path | None = None) -> OpenedCheckpoint:
        """Open it, downloaded if need be; the format's opener says what is raised."""
        return self.format.open(self.local(), tokenizer)


def find(name: str | Path, revision: str | None = None, entries: Mapping[str, str] = MappingProxyType({})) -> Found:
    """Resolve a path first, then the name of an entry, then a Hugging Face hub id.

    Args:
        name: a fairseq checkpoint file, a converted folder, a training folder, a Hugging Face folder, or one of the
            other two.
        revision: branch, tag or commit of a hub id.
        entries: hub entries, and what each of them stands for.

    Raises:
        LSGError: there is nothing of that name, it is no text or holds no checkpoint, or a path has a `revision`.
    """
    path = Path(name).expanduser()
    check_name(path)
    if not path.exists() and str(name) in entries:
        return find(entries[str(name)], revision)
    if path.exists():
        if revision is not None:
            raise LSGError(f"revision {revision!r} has no meaning for {path}, which is a path: leave it out")
        return find_at(path)
    if HUB_ID.fullmatch(str(name)) and path.suffix != ".pt":
        return Found(HUGGING_FACE, revision=find_revision(str(name), revision))
    raise LSGError(
        f"{name} does not exist: give a Hugging Face folder, a converted folder, a training folder, a fairseq "
        "model.pt, or a hub id such as ccdv/lsg-bart-base-4096"
    )


def find_at(path: Path) -> Found:
    """The checkpoint at a path that exists.

    Raises:
        LSGError: there is none.
    """
    for checkpoint_format in FORMATS:
        located = checkpoint_format.locate(path)
        if located is not None:
            return Found(checkpoint_format, located)
    raise LSGError(
        describe_foreign(path, names_in(path))
        or f"{path} holds no checkpoint: it has no config.json (Hugging Face), no {CONVERTED_FILE} (converted), and no "
        f"{' or '.join(TRAINED_FILES)} (trained)"
    )
