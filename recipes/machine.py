"""What every figure depends on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path


def processor() -> str:
    """The processor's name, or else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # another system than Linux
        lines = []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def machine() -> str:
    """Processor, threads, system and versions in a line."""
    python, torch = platform.python_version(), version("torch")
    return f"{processor()}, 2 threads, {platform.system()}, Python {python}, torch {torch}"


def machine_facts() -> dict[str, object]:
    """Processor, cores and versions, one by one."""
    # As setup.py has it.
    build = "ve-fairseq" if sys.version_info < (3, 13) else "fairseq-fixed"
    packages = {name: version(name) for name in ("torch", build, "lsg-fairseq")}
    return {"processor": processor(), "cores": os.cpu_count(), "Python": platform.python_version(), **packages}
