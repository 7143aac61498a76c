"""What the files of a converted folder and of a training folder are called, and what a hub id looks like."""

from __future__ import annotations

import re

# Where the two are looked for by those who open folders.
from lsg_fairseq.data.generation_settings import GENERATION_FILE, read_generation_settings

__all__ = ["CONVERTED_FILE", "GENERATION_FILE", "HUB_ID", "TRAINED_FILES", "read_generation_settings"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TRAINED_FILES = ("checkpoint_best.pt", "checkpoint_last.pt")
CONVERTED_FILE = "model.pt"
