"""The generation settings that belong to a checkpoint: generation.json beside it, and what a command takes from it."""

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
# What earlier versions wrote for the shell; it is not read, as it may hold any flag.
OLD_ARGUMENTS_FILE = "generation.args"
# What each setting may be, under fairseq-generate's names: in words, and a test.
SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **{
        name: (str(NUMBERS[name]), NUMBERS[name].allow)
        for name in ("beam", "lenpen", "min_len", "max_len_b", "no_repeat_ngram_size")
    },
    "forced_first_token": ("a symbol", lambda value: isinstance(value, str) and bool(value)),
    "forced_eos": ("true or false", lambda value: isinstance(value, bool)),
}


def read_generation_settings(folder: Path) -> dict[str, Any]:
    """The generation settings beside a converted checkpoint; none where there are none.

    Raises:
        LSGError: the file is no JSON object, or a field is unknown or of another type; or there is only the file that
            earlier versions wrote.
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
    """Refuse what is not in SETTINGS.

    Raises:
        LSGError: a field is unknown, or of another type.
    """
    for name, value in settings.items():
        if name not in SETTINGS:
            raise LSGError(
                f"{where} has the field {name!r:.80}, which is no generation setting (they are {', '.join(SETTINGS)}): "
                "remove it, or convert the checkpoint again"
            )
        wanted, is_allowed = SETTINGS[name]
        if not is_allowed(value):
            raise LSGError(f"{where}: {name} must be {wanted}, not {value!r:.80}: correct it, or convert again")


def common_settings(checkpoints: Sequence[str | Path]) -> tuple[dict[str, Any], str | None]:
    """The settings beside these checkpoints, and where they are from; the members of an ensemble must agree.

    Returns ({}, sentence) where they do not agree, and ({}, None) where there are none.
    """
    folders = list(dict.fromkeys(Path(path).parent for path in checkpoints))
    found = [read_generation_settings(folder) for folder in folders]
    if not any(found):
        return {}, None
    if any(settings != found[0] for settings in found):
        names = ", ".join(str(folder / GENERATION_FILE) for folder in folders)
        return {}, f"none of the generation settings beside the checkpoints is taken, as they differ: {names}"
    return found[0], str(folders[0] / GENERATION_FILE)


def given_settings(argv: Sequence[str]) -> set[str]:
    """Which of the settings a command line names, whatever their value: flags, abbreviated ones too, and hydra's."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for name in SETTINGS:
        parser.add_argument("--" + name.replace("_", "-"), dest=name, nargs="?")
    flags = [word for word in argv if word.startswith("--") and word != "--"]
    given = set(vars(parser.parse_known_args(flags)[0]))
    overrides = (re.match(r"\+{0,2}(?:generation|task)\.(\w+)=", word) for word in argv)
    return given | {match[1] for match in overrides if match and match[1] in SETTINGS}
