"""Reading a Hugging Face checkpoint folder: its JSON files at once, its tensors only when they are asked for."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lsg_fairseq.huggingface.config import model_type_of
from lsg_fairseq.huggingface.folder_kinds import describe_foreign, names_in
from lsg_fairseq.huggingface.led import LED, NOTE, bart_config, bart_loaders
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import check_file, first_names
from lsg_fairseq.weights.state_dicts import check_kind

# --- names as they were before the model was wrapped: DataParallel and torch.compile insert one of their own.

# nn.DataParallel and DistributedDataParallel; torch.compile.
WRAPPERS = ("module", "_orig_mod")


def unwrapped_names(names: Iterable[str]) -> dict[str, str]:
    """Name -> the name without the parts that wrappers add, wherever they are; no module of a model is called so.

    Raises:
        LSGError: two tensors would have one name.
    """
    unwrapped = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in names}
    first: dict[str, str] = {}
    for name, bare in unwrapped.items():
        if first.setdefault(bare, name) != name:
            raise LSGError(
                f"the tensors {first[bare]} and {name} are one and the same without {' and '.join(WRAPPERS)}"
                ": save the model once, unwrapped"
            )
    return unwrapped


# --- the folder.

# In the order of preference, which is transformers': one file, or an index that names its shards.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Buffers of older versions of transformers.
INTEGERS = ("position_ids", "token_type_ids")
Loader = Callable[[], Tensor]


class LazyTensors(Mapping[str, Tensor]):
    """Tensors of a checkpoint by name. A safetensors tensor is read on each access and not kept here."""

    def __init__(self, loaders: dict[str, Loader]) -> None:
        self._loaders = loaders

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._loaders[name]()
        if not name.endswith(INTEGERS):
            check_kind(name, tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)


@dataclass(frozen=True)
class HFCheckpoint:
    """A Hugging Face folder: config.json, generation_config.json ({} if there is none) and the weights.

    `notes` are sentences about what of the folder is left out.
    """

    folder: Path
    config: dict[str, Any]
    generation_config: dict[str, Any]
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def read_hf_folder(folder: str | Path) -> HFCheckpoint:
    """Open a checkpoint, short or LSG, a LED as a BART. Every weight file is opened, so that damage shows here.

    Raises:
        LSGError: no folder or no checkpoint, another model_type, a file missing, damaged or outside the folder, or a
            pickle that holds anything but tensors.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LSGError(f"{folder} is not a folder: give one with config.json and model.safetensors in it")
    if not (folder / "config.json").is_file():
        foreign = describe_foreign(folder, names_in(folder))
        raise LSGError(foreign or f"{folder} is not a Hugging Face checkpoint: it has no config.json")
    config = read_json(folder / "config.json")
    is_led = config.get("model_type") == LED
    config = bart_config(config) if is_led else config
    model_type_of(config)
    loaders = _unwrapped(_find_weights(folder))
    generation = folder / "generation_config.json"
    return HFCheckpoint(
        folder=folder,
        config=config,
        generation_config=read_json(generation) if generation.is_file() else {},
        tensors=LazyTensors(bart_loaders(loaders, config) if is_led else loaders),
        notes=(NOTE,) if is_led else (),
    )


def _unwrapped(loaders: dict[str, Loader]) -> dict[str, Loader]:
    names = unwrapped_names(loaders)
    return {names[name]: loader for name, loader in loaders.items()}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        LSGError: it holds none.
    """
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LSGError(f"{path} cannot be read as JSON ({_first_line(error)}): download it again") from error
    if not isinstance(content, dict):
        raise LSGError(f"{path} must hold a JSON object, not a {type(content).__name__}: download it again")
    return content


def _find_weights(folder: Path) -> dict[str, Loader]:
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            return _open_shards(path) if name.endswith(".json") else _open_weights(path)
    foreign = describe_foreign(folder, names_in(folder))
    raise LSGError(foreign or f"{folder} has no weights: one of {', '.join(WEIGHT_FILES)} must be in it")


def _open_shards(index_path: Path) -> dict[str, Loader]:
    """Open all shards of an index and check that each tensor is where the index says.

    Raises:
        LSGError: the file is not an index, names a file outside its folder, or a shard or tensor is missing.
    """
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise LSGError(f"{index_path} has no weight_map of tensor and file names: download it again")
    shards: dict[str, dict[str, Loader]] = {}
    for name in sorted(set(weight_map.values())):
        # Hugging Face's cache links to files elsewhere, so links are followed; paths that lead out of it are not.
        if PurePosixPath(name).is_absolute() or ".." in name.split("/") or "\\" in name or ":" in name:
            raise LSGError(
                f"{index_path} names the shard {name!r}, and only files beside it or below are read: fix the index"
            )
        if not (index_path.parent / name).is_file():
            raise LSGError(f"{index_path} names the shard {name!r}, which is missing: download the checkpoint again")
        shards[name] = _open_weights(index_path.parent / name)
    lost = sorted(key for key, name in weight_map.items() if key not in shards[name])
    if lost:
        raise LSGError(f"{index_path} lists tensors that its shards lack ({first_names(lost)}): download it again")
    return {key: loader for shard in shards.values() for key, loader in shard.items()}


def _open_weights(path: Path) -> dict[str, Loader]:
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


def _open_safetensors(path: Path) -> dict[str, Loader]:
    """Map the file into memory; its header says whether the file is complete."""
    try:
        handle = safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise LSGError(f"{path} is damaged or truncated ({_first_line(error)}): download it again") from error
    return {name: _tensor_of(handle, name) for name in handle.keys()}  # noqa: SIM118 (a handle has keys(), but no iter)


def _tensor_of(handle: Any, name: str) -> Loader:
    return lambda: handle.get_tensor(name)


def _open_pickle(path: Path) -> dict[str, Loader]:
    """Read a pytorch_model.bin with torch's restricted unpickler, mapped into memory if its format allows.

    Raises:
        LSGError: it holds anything but named tensors, or cannot be read.
    """
    try:
        # Files from before torch 1.6 (2020) are not zip archives and cannot be mapped.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise LSGError(
            f"{path} was refused: it is damaged or holds something other than tensors, which could run code "
            f"({_refused_name(error)}); use a checkpoint with model.safetensors"
        ) from error
    except Exception as error:  # a damaged pickle fails in many ways, struct.error among them
        raise LSGError(f"{path} cannot be read ({_first_line(error)}): download it again") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise LSGError(f"{path} must hold named tensors and nothing else: use a checkpoint with model.safetensors")
    return {name: _constant(tensor) for name, tensor in state.items()}


def _constant(tensor: Tensor) -> Loader:
    return lambda: tensor


def _refused_name(error: Exception) -> str:
    """Return what torch's unpickler objected to, out of its page of advice."""
    words = str(error).split()
    if "GLOBAL" in words[:-1]:
        return words[words.index("GLOBAL") + 1]
    return _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
