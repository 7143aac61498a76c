"""Whether fairseq's .bin and .idx files are of one run: of two, they would be read without an error."""

from __future__ import annotations

import glob
import struct
from pathlib import Path

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset, _code_to_dtype

from lsg_fairseq.data.output_folder import half_moved
from lsg_fairseq.modules.lsg_config import LSGError

# fairseq/data/indexed_dataset.py: magic, version (uint64), code of the type (uint8), number of items (uint64); then
# their lengths (int32) and the bytes that each begins at (int64).
MAGIC = MMapIndexedDataset.Index._HDR_MAGIC
HEADER = struct.Struct("<9sQBQ")


def check_pairs(folder: Path, split: str) -> None:
    """See that the files of a split belong together; files of other formats are fairseq's business.

    Raises:
        LSGError: they are of two runs, or one is cut.
    """
    if half_moved(folder):
        raise LSGError(
            f"lsg-preprocess was killed while it put its files into {folder}: run it again with --out {folder}, which "
            "finishes that first"
        )
    counts = {path.name: _check_pair(path) for path in sorted(folder.glob(f"{glob.escape(split)}.*-*.*.idx"))}
    known = {name: count for name, count in counts.items() if count is not None}
    if len(set(known.values())) > 1:
        found = " and ".join(f"{count} examples in {name}" for name, count in known.items())
        raise LSGError(f"{folder} has {found}, which must correspond: preprocess the {split} split again")


def _check_pair(index: Path) -> int | None:
    """The number of items of a pair; None where it is not of the format that lsg-preprocess writes."""
    data = index.with_suffix(".bin")
    with index.open("rb") as file:
        header = file.read(HEADER.size)
        if not header.startswith(MAGIC):
            return None
        if len(header) < HEADER.size:
            raise LSGError(f"{index} is cut within its beginning: preprocess that split again")
        if not data.is_file():
            raise LSGError(f"{data}, which belongs to {index.name}, is missing: preprocess that split again")
        _, version, code, count = HEADER.unpack(header)
        is_whole = version == 1 and code in _code_to_dtype and index.stat().st_size == HEADER.size + 12 * count
        lengths = np.fromfile(file, dtype="<i4", count=count if is_whole else 0).astype(np.int64)
        starts = np.fromfile(file, dtype="<i8", count=count if is_whole else 0)
    ends = lengths.cumsum() * np.dtype(_code_to_dtype.get(code, np.int8)).itemsize
    in_order = is_whole and not lengths.min(initial=0) < 0 and np.array_equal(starts, np.append([0], ends)[:-1])
    if not in_order or data.stat().st_size != (ends[-1] if count else 0):
        raise LSGError(f"{data} does not belong to {index.name}, or one of them is cut: preprocess that split again")
    return count
