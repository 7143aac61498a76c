"""What surrounds a token sequence: BART, Pegasus and mBART differ."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.languages import BEHIND, FRONT, language_symbol, place_of_languages
from lsg_fairseq.weights.families import FAMILIES, PEGASUS, Family
from lsg_fairseq.weights.limits import check_file

SEQUENCE_FORMAT_FILE = "sequence_format.json"


@dataclass(frozen=True)
class SequenceFormat:
    """Whether `<s>` starts source and target, and what the decoder starts from; `</s>` always ends a text.

    `languages` says where the language code of a sequence stands: "front", in place of `<s>`, which makes the target's
    the first token of every output (mBART-50); "behind", after `</s>`, which makes the target's the decoder's start
    (mBART); or "", for models without such codes. `source_language` and `target_language` are codes such as en_XX that
    hold where nobody names others, "" for none.

    The defaults are BART's.
    """

    source_bos: bool = True
    target_bos: bool = True
    decoder_start: str = "</s>"
    languages: str = ""
    source_language: str = ""
    target_language: str = ""

    def speaking(self, source: str | None = None, target: str | None = None) -> SequenceFormat:
        """The same for texts of these languages; None or "" leaves one as it is.

        Raises:
            LSGError: the model has no language codes, or one is no text.
        """
        named = {"source_language": source, "target_language": target}
        odd = [code for code in named.values() if code is not None and not isinstance(code, str)]
        if odd:
            raise LSGError(f"a language must be a code such as 'en_XX', not {odd[0]!r:.80}")
        named = {name: code.strip("[]") for name, code in named.items() if code}
        if named and not self.languages:
            raise LSGError(
                f"this model has no language codes, so {' and '.join(named.values()):.80} cannot be set: leave it out, "
                "or take an mBART"
            )
        return replace(self, **named)

    @property
    def has_target(self) -> bool:
        """Whether it is known how an output begins: with language codes, that takes a target language."""
        return not self.languages or bool(self.target_language)

    def ends(self, side: str, language: str = "") -> tuple[list[str], list[str]]:
        """The symbols in front of and behind a text of `side` ("source" or "target") in a language, else its own.

        Raises:
            LSGError: the model has language codes, and none is settled.
        """
        if not self.languages:
            bos = self.source_bos if side == "source" else self.target_bos
            return (["<s>"] if bos else []), ["</s>"]
        symbol = self._symbol(side, language)
        return ([symbol], ["</s>"]) if self.languages == FRONT else ([], ["</s>", symbol])

    @property
    def num_front(self) -> int:
        """How many symbols are in front of a source."""
        return int(self.languages == FRONT or (self.source_bos and not self.languages))

    @property
    def num_behind(self) -> int:
        """How many symbols are behind a text."""
        return 2 if self.languages == BEHIND else 1

    def start(self, language: str = "") -> str:
        """The symbol that the decoder starts from for a target in a language, else its own; raises as `ends`."""
        return self._symbol("target", language) if self.languages == BEHIND else self.decoder_start

    def forced_first(self, language: str = "") -> str | None:
        """The symbol that a target in a language, else its own, has to begin with, if any; raises as `ends`."""
        return self._symbol("target", language) if self.languages == FRONT else None

    def _symbol(self, side: str, language: str) -> str:
        code = language or (self.source_language if side == "source" else self.target_language)
        if not code:
            raise LSGError(
                f"this model has language codes, and the {side}s' is not settled: name it, such as "
                f"--{side}-lang-token en_XX, or {side}_lang= in Python"
            )
        return language_symbol(code)

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
        check_file(path)
        names = [f.name for f in fields(cls)]
        try:
            values = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise LSGError(f"{path} is not JSON ({error}); write it again with {', '.join(names)}") from error
        # Folders from before there were language codes are without those fields.
        if not isinstance(values, dict) or not set(names[:3]) <= set(values) <= set(names):
            raise LSGError(f"{path} must be a JSON object with exactly {', '.join(names)}, not {values!r:.200}")
        values = {**asdict(cls()), **values}
        for f in fields(cls):
            if type(values[f.name]) is not type(f.default):
                wanted = type(f.default).__name__
                raise LSGError(f"{path} must state {f.name} as a {wanted}, not {values[f.name]!r:.80}: correct it")
        if values["languages"] not in ("", FRONT, BEHIND):
            raise LSGError(f'{path} must state languages as "front", "behind" or "", not {values["languages"]!r:.80}')
        return cls(**values)


def format_of(family: Family) -> SequenceFormat:
    """What surrounds the sequences of a family's models."""
    return SequenceFormat(source_bos=family.bos, target_bos=family.bos, decoder_start=family.decoder_start)


def format_of_tokenizer(tokenizer_class: str, tokens: Iterable[str] = ()) -> SequenceFormat:
    """What surrounds the sequences of a tokenizer class of transformers; BART's where no other family has it alone.

    Where no class is named, the language codes among the tokens tell an mBART's.
    """
    languages = place_of_languages(tokenizer_class, tokens)
    if languages:
        return SequenceFormat(source_bos=False, target_bos=False, languages=languages)
    own = [f for f in FAMILIES.values() if f.tokenizer_class and tokenizer_class.startswith(f.tokenizer_class)]
    return format_of(own[0]) if own else SequenceFormat()


def is_format_of(family: Family, sequence_format: SequenceFormat) -> bool:
    """Whether a family's models can have this format, whatever the languages."""
    if sequence_format.languages:
        return family.has_languages
    return sequence_format == format_of(family)


PEGASUS_FORMAT = format_of(PEGASUS)
