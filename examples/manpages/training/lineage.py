"""What each folder that training makes follows from, kept in the folder: nothing old is ever taken for something new.

fairseq-train goes on from any checkpoint that lies in its folder, whatever that one was trained with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError
from recipes.files import sha256_of_text

RECORD = "made_from.json"
Facts = Mapping[str, Any]  # what JSON can hold


def key_of(facts: Facts) -> str:
    """What stands for these facts among the facts of whatever follows from them."""
    return sha256_of_text(_as_text(facts))


def read_facts(folder: Path) -> Facts:
    """What the folder was made from; nothing if it does not say."""
    record = folder / RECORD
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}


def write_facts(folder: Path, facts: Facts) -> None:
    """Say in the folder, which is made if need be, what it is made from."""
    with staged_output(folder) as aside:
        (aside / RECORD).write_text(_as_text(facts), encoding="utf-8")


def is_made_from(folder: Path, facts: Facts) -> bool:
    """Whether the folder was made from exactly this."""
    return _as_text(read_facts(folder)) == _as_text(facts)


def make_room(folder: Path) -> None:
    """Remove what a quick command makes again, and say so; nothing happens if there is nothing."""
    if folder.exists():
        print(f"{folder} does not follow from these settings and data: it is made anew", flush=True)
        shutil.rmtree(folder)


def check_trained(folders: Sequence[Path], wanted: Sequence[Facts]) -> None:
    """Refuse to go on with training that was begun with something else.

    Args:
        folders: of checkpoints, in the order of training; those without a checkpoint may follow from anything.
        wanted: for each folder, some or all of its facts.

    Raises:
        LSGError: a folder has checkpoints and other facts.
    """
    for place, (folder, facts) in enumerate(zip(folders, wanted, strict=True)):
        found = read_facts(folder)
        different = [name for name, value in json.loads(_as_text(facts)).items() if found.get(name) != value]
        if different and has_checkpoint(folder):
            following = [other.name for other in folders[place + 1 :] if has_checkpoint(other)]
            removed = f"it and what follows from it ({', '.join(following)})" if following else "it"
            raise LSGError(
                f"{folder} was begun with other settings or data ({', '.join(different)}): remove {removed} to train "
                "anew, or give another --data"
            )


def has_checkpoint(folder: Path) -> bool:
    """Whether training in this folder came as far as a checkpoint."""
    return any(folder.glob("checkpoint*.pt"))


def _as_text(facts: Facts) -> str:
    return json.dumps(facts, indent=1) + "\n"
