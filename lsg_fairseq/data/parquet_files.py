"""Parquet files, read a few rows at a time; pyarrow is imported only when there is such a file."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsg_fairseq.modules.lsg_config import LSGError

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetFile

# Rows decoded at a time.
ROWS = 64


def parquet_rows(path: Path, fields: Collection[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, row) for each row, with values that JSON can hold.

    Args:
        fields: the fields that are needed, `a.b` for a field of the struct column `a`; other columns are not read.
            None: all. If a field is missing, all are read, so that an error can list them.

    Raises:
        LSGError: pyarrow is not installed, or the file is missing or damaged.
    """
    file = _opened(path)
    number = 0
    columns = _columns(file.schema_arrow.names, fields)
    try:
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns, use_threads=False):
                for row in _with_readable_times(batch).to_pylist():
                    number += 1
                    yield number, {name: _plain(value) for name, value in row.items()}
    except _errors() as error:
        raise _damaged(path, f" after row {number}", error) from error
    finally:
        file.close()


def count_rows(path: Path) -> int:
    """The number of rows by the file's metadata; raises as parquet_rows."""
    with _opened(path) as file:
        return file.metadata.num_rows


def _opened(path: Path) -> ParquetFile:
    if not path.exists():
        raise LSGError(f"the file {path} does not exist")
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise LSGError(
            f"reading the Parquet file {path} needs pyarrow: pip install pyarrow, or lsg-fairseq[parquet]"
        ) from error
    try:
        return ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
    except _errors() as error:
        raise _damaged(path, "", error) from error


def _errors() -> tuple[type[Exception], ...]:
    from pyarrow import ArrowException

    return (ArrowException, OSError, ValueError, OverflowError)


def _damaged(path: Path, place: str, error: Exception) -> LSGError:
    reason = " ".join(str(error).split())[:200]
    return LSGError(f"{path} is not a Parquet file, or is damaged{place} ({reason}): fetch it again")


def _columns(names: list[str], fields: Collection[str] | None) -> list[str] | None:
    if fields is None:
        return None
    found = {field: [n for n in names if field == n or field.startswith(f"{n}.")] for field in fields}
    return sorted({name for of_field in found.values() for name in of_field}) if all(found.values()) else None


def _with_readable_times(batch: RecordBatch) -> RecordBatch:
    """Convert times in nanoseconds to text: Python's datetime cannot hold them."""
    from pyarrow import types

    for place, field in enumerate(batch.schema):
        if types.is_temporal(field.type) and getattr(field.type, "unit", "") == "ns":
            batch = batch.set_column(place, field.name, batch.column(place).cast("string"))
    return batch


def _plain(value: Any) -> Any:
    """A value that JSON can hold: times and decimals as text, bytes as text if they are UTF-8, else in base64."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
