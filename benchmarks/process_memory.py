"""Memory of this process, as Linux counts it."""

from __future__ import annotations

import gc
from pathlib import Path


def memory_mib(field: str) -> float:
    """VmRSS (resident now) or VmHWM (its peak since the last reset), MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def reset_peak() -> None:
    """Let VmHWM start again from what is resident now, so that what was built before does not count."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
