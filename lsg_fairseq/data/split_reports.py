"""preprocess.json: what lsg-preprocess says about the splits of a data folder, and what the task reads of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lsg_fairseq.data.kept_part import check_part
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import check_file

REPORT_FILE = "preprocess.json"


def read_report(folder: Path) -> dict[str, Any]:
    """What is known about the splits in a folder, {} where there is no report.

    Raises:
        LSGError: the file is damaged.
    """
    path = folder / REPORT_FILE
    if not path.is_file():
        return {}
    check_file(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(report["splits"], dict) and isinstance(report["tokenizer"], dict):
            return report
        reason = "splits and tokenizer must be objects"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise LSGError(f"{path} is damaged ({reason}): remove it, and it is written anew, with that run's splits alone")


def part_of_split(folder: Path, split: str) -> str | None:
    """The part of long documents that a split was made for (lsg-preprocess --keep-part), None where it says nothing.

    Raises:
        LSGError: the report is damaged.
    """
    entry = read_report(folder).get("splits", {}).get(split)
    part = entry.get("keep_part") if isinstance(entry, dict) else None
    check_part(part, f"{folder / REPORT_FILE}: keep_part of {split}")
    return part
