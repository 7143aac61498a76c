"""The JSON file of a benchmark that is written after every row, and goes on there if it was interrupted."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsg_fairseq.data.output_folder import staged_file


def open_results(out: Path, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured so far: the conditions and `rows`; exits with a sentence if the conditions were others."""
    results = json.loads(out.read_text()) if out.exists() else {**conditions, "rows": []}
    if {name: results.get(name) for name in conditions} != conditions:
        sys.exit(f"{out} was measured under other conditions; remove it, or name another --out")
    return results


def add_row(results: dict[str, Any], row: Mapping[str, Any], out: Path) -> None:
    """Add a row and write the file, which is whole at any moment."""
    results["rows"].append(row)
    with staged_file(out) as staged:
        staged.write_text(json.dumps(results, indent=1) + "\n")
