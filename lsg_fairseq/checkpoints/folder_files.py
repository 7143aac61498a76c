"""What the files of a converted folder and of a training folder are called, and what a hub id looks like."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TRAINED_FILES = ("checkpoint_best.pt", "checkpoint_last.pt")
CONVERTED_FILE = "model.pt"
GENERATION_FILE = "generation.json"


def read_generation_settings(folder: Path) -> dict[str, object]:
    """The generation settings beside a converted checkpoint; none where there are none.

    Raises:
        LSGError: the file is no JSON object.
    """
    path = folder / GENERATION_FILE
    try:
        settings = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise LSGError(f"{path} is not JSON ({error}): convert the checkpoint again") from error
    if not isinstance(settings, dict):
        raise LSGError(f"{path} must be a JSON object, not {settings!r:.80}: convert the checkpoint again")
    return settings
