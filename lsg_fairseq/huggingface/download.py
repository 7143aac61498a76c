"""Checkpoints from the Hugging Face hub: the few files that are needed, pinned to one commit, each checked by its hash.

huggingface_hub does the transport: its cache, resuming, HF_ENDPOINT and HF_HUB_OFFLINE apply. Python files of a
repository are never fetched, and a pickle only where a repository has no safetensors (it is read with weights_only).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lsg_fairseq.huggingface.folder_kinds import describe_foreign
from lsg_fairseq.huggingface.read_folder import WEIGHT_FILES
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import ALL_FILES as TOKENIZER_FILES
from lsg_fairseq.weights.limits import first_names

CONFIG_FILE = "config.json"
SECONDS_TO_ANSWER = 10
ATTEMPTS = 3


@dataclass(frozen=True)
class Revision:
    """A repository at a commit; `files` are the names of its files, None without a network."""

    hub_id: str
    asked: str | None
    commit: str
    files: Sequence[str] | None


def find_revision(hub_id: str, asked: str | None = None) -> Revision:
    """Ask the hub which commit a branch, tag or commit is; without a network, the cache.

    Raises:
        LSGError: there is no such repository or revision, or no network and nothing in the cache.
    """
    import huggingface_hub

    with _clear_errors(hub_id, asked):
        try:
            info = huggingface_hub.HfApi().model_info(hub_id, revision=asked, timeout=SECONDS_TO_ANSWER)
        except Exception as error:
            if isinstance(error, huggingface_hub.errors.HfHubHTTPError):
                raise
            # No network, or offline by HF_HUB_OFFLINE: the last known state will do.
            cached = huggingface_hub.hf_hub_download(hub_id, CONFIG_FILE, revision=asked, local_files_only=True)
            return Revision(hub_id, asked, Path(cached).parent.name, None)
    return Revision(hub_id, asked, info.sha, [sibling.rfilename for sibling in info.siblings])


def download_config(revision: Revision) -> Path:
    """Fetch config.json alone and return its folder; raises as download_checkpoint."""
    return _fetch(revision, CONFIG_FILE).parent


def download_checkpoint(revision: Revision) -> Path:
    """Fetch what a conversion needs and return its folder in huggingface_hub's cache.

    Raises:
        LSGError: a file is missing, cannot be fetched, or is not what the hub says it is.
    """
    _check_kind(revision)
    config = _fetch(revision, CONFIG_FILE)
    if revision.files is None:
        return config.parent
    for name in (*TOKENIZER_FILES, "generation_config.json", *_weight_files(revision)):
        if name in revision.files:
            _fetch(revision, name)
    return config.parent


def _check_kind(revision: Revision) -> None:
    names = revision.files or ()
    foreign = describe_foreign(revision.hub_id, names)
    if foreign and (CONFIG_FILE not in names or not any(name in names for name in WEIGHT_FILES)):
        raise LSGError(foreign)


def _weight_files(revision: Revision) -> list[str]:
    """The names of one complete set of weights, safetensors before pickles."""
    assert revision.files is not None
    name = next((name for name in WEIGHT_FILES if name in revision.files), None)
    if name is None:
        raise LSGError(f"{revision.hub_id} has no weights: one of {', '.join(WEIGHT_FILES)} must be in the repository")
    if not name.endswith(".json"):
        return [name]
    index = _fetch(revision, name)
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LSGError(
            f"{name} of {revision.hub_id} is not an index of weights ({error}): ask its publisher"
        ) from error
    lost = sorted(str(shard) for shard in shards if shard not in revision.files)
    if lost:
        raise LSGError(f"{name} of {revision.hub_id} names files that the repository lacks: {first_names(lost)}")
    return [name, *sorted(shards)]


def _fetch(revision: Revision, name: str) -> Path:
    """One file, checked; the cache's own reference to the asked revision is written along with config.json."""
    import huggingface_hub

    asked = revision.asked if name == CONFIG_FILE else revision.commit
    offline = revision.files is None
    with _clear_errors(revision.hub_id, revision.asked, name):
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                path = huggingface_hub.hf_hub_download(revision.hub_id, name, revision=asked, local_files_only=offline)
                break
            except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.EntryNotFoundError):
                raise  # an answer, which another attempt would not change
            except Exception:
                # A broken connection: what arrived is kept. Newer versions try again by themselves.
                if not attempts_left:
                    raise
    # The folder of the commit holds a file of a subfolder, such as a shard, further down.
    if Path(path).parents[name.count("/")].name != revision.commit:
        raise LSGError(f"{revision.hub_id} changed on the hub during the download: run it again")
    _check_hash(Path(path), name, revision.hub_id)
    return Path(path)


def _check_hash(path: Path, name: str, hub_id: str) -> None:
    """Compare a cached file with its name there, which is the hub's hash of it; remove it if it is another file.

    huggingface_hub itself compares sizes alone. Where the cache has no links (Windows) there is no name to compare.
    """
    blob = path.resolve()
    expected = blob.name
    if len(expected) == 64:
        digest = hashlib.sha256()
    elif len(expected) == 40:  # a small file: git's own hash
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode())
    else:
        return
    with blob.open("rb") as file:
        actual = hashlib.file_digest(file, lambda: digest).hexdigest()
    if actual != expected:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise LSGError(f"{name} of {hub_id} arrived damaged (wrong hash) and was removed: run it again")


@contextmanager
def _clear_errors(hub_id: str, asked: str | None, name: str = "") -> Iterator[None]:
    """Turn what huggingface_hub and its HTTP library raise into one sentence."""
    from huggingface_hub import errors

    at = f"{name} of {hub_id}" if name else hub_id
    at += f" at revision {asked!r}" if asked else ""
    try:
        yield
    except errors.RepositoryNotFoundError as error:
        raise LSGError(
            f"{hub_id} is neither a path here nor a repository on the Hugging Face hub that you may read: check the "
            "name, or log in with `hf auth login` if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise LSGError(f"{hub_id} has no revision {asked!r}: give a branch, a tag or a commit of it") from error
    except errors.LocalEntryNotFoundError as error:
        raise LSGError(
            f"{at} is neither a path here nor in the cache, and the hub cannot be reached or HF_HUB_OFFLINE is set: "
            "connect to the network once, or give a folder"
        ) from error
    except errors.EntryNotFoundError as error:
        raise LSGError(f"{at} does not exist on the hub: choose another checkpoint") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LSGError(f"{at} could not be downloaded ({reason}): run it again to continue") from error
