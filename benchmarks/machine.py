"""What every figure depends on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def machine() -> str:
    """Processor, threads, system and versions in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    return f"{model}, 2 threads, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
