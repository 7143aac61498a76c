"""What surrounds a token sequence: BART and Pegasus differ."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.families import FAMILIES, PEGASUS, Family

SEQUENCE_FORMAT_FILE = "sequence_format.json"


@dataclass(frozen=True)
class SequenceFormat:
    """Whether `<s>` starts source and target, and what the decoder starts from; `</s>` always ends a sequence.

    The defaults are BART's.
    """

    source_bos: bool = True
    target_bos: bool = True
    decoder_start: str = "</s>"

    def save(self, folder: str | Path) -> None:
        """Write sequence_format.json into the folder."""
        (Path(folder) / SEQUENCE_FORMAT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> SequenceFormat:
        """Read sequence_format.json; BART's format if the folder has none.

        Raises:
            LSGError: the file is not JSON or has other fields than this class.
        """
        path = Path(folder) / SEQUENCE_FORMAT_FILE
        if not path.is_file():
            return cls()
        names = [f.name for f in fields(cls)]
        try:
            values = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise LSGError(f"{path} is not JSON ({error}); write it again with {', '.join(names)}") from error
        if not isinstance(values, dict) or set(values) != set(names):
            raise LSGError(f"{path} must be a JSON object with exactly {', '.join(names)}, not {values!r:.200}")
        for f in fields(cls):
            if type(values[f.name]) is not type(f.default):
                wanted = type(f.default).__name__
                raise LSGError(f"{path} must state {f.name} as a {wanted}, not {values[f.name]!r:.80}: correct it")
        return cls(**values)


def format_of(family: Family) -> SequenceFormat:
    """What surrounds the sequences of a family's models."""
    return SequenceFormat(source_bos=family.bos, target_bos=family.bos, decoder_start=family.decoder_start)


def format_of_tokenizer(tokenizer_class: str) -> SequenceFormat:
    """What surrounds the sequences of a tokenizer class of transformers; BART's where no other family has it alone."""
    own = [f for f in FAMILIES.values() if f.tokenizer_class and tokenizer_class.startswith(f.tokenizer_class)]
    return format_of(own[0]) if own else SequenceFormat()


PEGASUS_FORMAT = format_of(PEGASUS)
