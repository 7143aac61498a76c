"""The generation settings of a checkpoint, which generation.json beside it holds, and those of a command line."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import NUMBERS, check_file

GENERATION_FILE = "generation.json"
# Written by earlier versions for use in a shell; not read, because it may contain any flag.
OLD_ARGUMENTS_FILE = "generation.args"
# The settings by their names in fairseq-generate: the allowed values in words, and a check.
SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **{
        name: (str(NUMBERS[name]), NUMBERS[name].allow)
        for name in ("beam", "lenpen", "min_len", "max_len_b", "no_repeat_ngram_size")
    },
    "forced_first_token": ("a symbol", lambda value: isinstance(value, str) and bool(value)),
    "forced_eos": ("true or false", lambda value: isinstance(value, bool)),
}


def read_generation_settings(folder: Path) -> dict[str, Any]:
    """The generation settings in a converted checkpoint's folder; {} if there are none.

    Raises:
        LSGError: the file is not a JSON object, a field is unknown or not allowed, or there is only the file of earlier
            versions.
    """
    path = folder / GENERATION_FILE
    if not path.is_file():
        if (folder / OLD_ARGUMENTS_FILE).is_file():
            raise LSGError(
                f"{folder} has {OLD_ARGUMENTS_FILE}, which is not read, and no {GENERATION_FILE}: convert the "
                f"checkpoint again, or remove {OLD_ARGUMENTS_FILE}"
            )
        return {}
    check_file(path)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LSGError(f"{path} is not JSON ({error}): convert the checkpoint again") from error
    if not isinstance(settings, dict):
        raise LSGError(f"{path} must be a JSON object, not {settings!r:.80}: convert the checkpoint again")
    check_generation_settings(settings, str(path))
    return settings


def check_generation_settings(settings: Mapping[str, Any], where: str) -> None:
    """Check settings from a file against SETTINGS; `where` names the file in errors.

    Raises:
        LSGError: a field is unknown, or its value is not allowed.
    """
    for name, value in settings.items():
        if name not in SETTINGS:
            raise LSGError(
                f"{where} has the field {name!r:.80}, which is not a generation setting ({', '.join(SETTINGS)}): "
                "remove it, or convert the checkpoint again"
            )
        wanted, is_allowed = SETTINGS[name]
        if not is_allowed(value):
            raise LSGError(f"{where}: {name} must be {wanted}, not {value!r:.80}: correct it, or convert again")


def common_settings(checkpoints: Sequence[str | Path]) -> tuple[dict[str, Any], str | None]:
    """The settings beside checkpoints that are used together, and the path of their file.

    Returns:
        ({}, None) if there are no settings; ({}, a warning) if the checkpoints disagree.

    Raises:
        LSGError: as read_generation_settings.
    """
    folders = list(dict.fromkeys(Path(path).parent for path in checkpoints))
    found = [read_generation_settings(folder) for folder in folders]
    if not any(found):
        return {}, None
    if any(settings != found[0] for settings in found):
        names = ", ".join(str(folder / GENERATION_FILE) for folder in folders)
        return {}, f"the generation settings beside the checkpoints are ignored, as they differ: {names}"
    return found[0], str(folders[0] / GENERATION_FILE)


def given_settings(argv: Sequence[str]) -> set[str]:
    """The settings that a command line sets to any value, by flags (also abbreviated) or by hydra overrides."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for name in SETTINGS:
        parser.add_argument("--" + name.replace("_", "-"), dest=name, nargs="?")
    flags = [word for word in argv if word.startswith("--") and word != "--"]
    given = set(vars(parser.parse_known_args(flags)[0]))
    overrides = (re.match(r"\+{0,2}(?:generation|task)\.(\w+)=", word) for word in argv)
    return given | {match[1] for match in overrides if match and match[1] in SETTINGS}
