"""Hashes of what a run reads: a rerun must notice that a file of the same name has different content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from lsg_fairseq.checkpoints.loading import CheckpointFiles
from lsg_fairseq.checkpoints.open_fairseq import read_original
from lsg_fairseq.huggingface.generation_config import source_prefix
from lsg_fairseq.tokenizers.base import ALL_FILES
from lsg_fairseq.tokenizers.sequence_format import SEQUENCE_FORMAT_FILE


def content_of_checkpoint(files: CheckpointFiles) -> str:
    """The SHA-256 of everything that a checkpoint's summaries depend on."""
    beside = [*sorted(files.vocabulary.glob("dict*.txt")), files.vocabulary / SEQUENCE_FORMAT_FILE]
    tokenizer = [files.tokenizer / name for name in ALL_FILES]
    found = [path for path in (files.model, *beside, *tokenizer) if path.is_file()]
    described = [[path.name, hash_file(path)] for path in found]
    # A converted folder also stores its original's config; only the prefix in it affects summaries.
    prefix = source_prefix(read_original(files.model.parent).get("config", {}))
    content = [described, sorted(files.generation.items()), *([prefix] if prefix else [])]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def content_of_inputs(paths: Iterable[Path]) -> dict[str, str]:
    """Path -> SHA-256 for each regular file; a pipe can be read only once, and has none."""
    return {str(path): hash_file(path) for path in paths if path.is_file()}


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
