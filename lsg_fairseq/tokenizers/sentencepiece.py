"""A sentencepiece model as a DocumentTokenizer: as it is, or in the order that a class of transformers gives it.

transformers is kept out on purpose: its version 5 swaps Pegasus' ids 2 and 3 when it has nothing but spiece.model, and
ends a text that ends with a space with a piece of its own (benchmarks/tokenizer_parity.py).
"""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import DocumentTokenizer
from lsg_fairseq.tokenizers.languages import CODES_25, CODES_50, language_symbol, language_symbols
from lsg_fairseq.tokenizers.sequence_format import format_of_tokenizer
from lsg_fairseq.tokenizers.settings import added_tokens, clear_error

# Pegasus puts 103 entries of its own in front of the pieces: Hugging Face id = piece + 103.
PEGASUS_OFFSET = 103
PEGASUS_SPECIALS = ("<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, PEGASUS_OFFSET)), "<unk>")
# What XLM-R's and CamemBERT's model files are called, and other families' with yet other layouts.
BPE_MODEL = "sentencepiece.bpe.model"


class PieceOrder(NamedTuple):
    """What Hugging Face puts in front of the pieces from `first_piece` on, and behind them."""

    front: tuple[str, ...] = ()
    first_piece: int = 0
    behind: tuple[str, ...] = ()


# fairseq's own four, in front of its vocabularies.
FAIRSEQ_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
# By the beginning of tokenizer_class, the longest first. XLM-R, mBART and CamemBERT keep fairseq's vocabularies, whose
# dict.txt has no piece of the model's own specials; CamemBERT's model starts with these, so their rows are there twice.
# Language codes have fairseq's names.
PIECE_ORDERS = {
    "Pegasus": PieceOrder(PEGASUS_SPECIALS, 3),
    "XLMRoberta": PieceOrder(FAIRSEQ_SPECIALS, 3, ("<mask>",)),
    "MBart50": PieceOrder(FAIRSEQ_SPECIALS, 3, (*map(language_symbol, CODES_50), "<mask>")),
    "MBart": PieceOrder(FAIRSEQ_SPECIALS, 3, (*map(language_symbol, CODES_25), "<mask>")),
    "Barthez": PieceOrder(),  # the model's own pieces, special tokens and <mask> among them
    "Camembert": PieceOrder(("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"), 1, ("<mask>",)),
}


def order_of(tokenizer_class: str) -> PieceOrder | None:
    """The order of a class of transformers, None where it is not in PIECE_ORDERS."""
    return next((order for name, order in PIECE_ORDERS.items() if tokenizer_class.startswith(name)), None)


class SentencePieceTokenizer(DocumentTokenizer):
    """A sentencepiece model, laid out as tokenizer_config.json's class says, or as it is.

    Without a class it is Pegasus' if the model has Pegasus' own layout: `<pad>` 0, `</s>` 1, unknown 2, and no
    beginning of sentence. Special tokens written out in a text count as such for the classes of PIECE_ORDERS only, as
    in Hugging Face; each stretch between two of them is encoded on its own.
    """

    def __init__(self, folder: Path, path: Path, settings: dict[str, Any]) -> None:
        with clear_error(path, "a sentencepiece model"):
            self.processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.pieces = [self.processor.id_to_piece(i) for i in range(self.processor.get_piece_size())]
        tokenizer_class = self._tokenizer_class(path, settings)
        known_order = order_of(tokenizer_class)
        order = known_order or PieceOrder()
        self.sequence_format = format_of_tokenizer(tokenizer_class)
        if order.front:
            self.pieces[self.processor.unk_id()] = "<unk>"
        tokens = [*order.front, *self.pieces[order.first_piece :], *order.behind]
        known = set(tokens)
        renamed = language_symbols(CODES_50) if self.sequence_format.languages else {}
        added = {renamed.get(token, token): flags for token, flags in added_tokens(folder, settings).items()}
        extra = [token for token in added if token not in known]
        super().__init__(folder, [*tokens, *extra], {"mask_token": "<mask_2>", **settings})
        own = [token for token in (self.bos, self.eos, self.mask) if token] if known_order else []
        specials = [*order.front, *order.behind, *extra, *own]
        self.special |= {*order.front, *order.behind, *(name for name, flags in added.items() if flags.get("special"))}
        self._verbatim = {*specials, self.unk}
        # Texts have Hugging Face's names of language codes.
        self._named = {code: symbol for code, symbol in renamed.items() if symbol in self.languages}
        specials = [token for token in specials if token not in self.languages] + [*self._named]
        # The longest first: <s>NOTUSED starts like <s>.
        names = sorted(dict.fromkeys(specials), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def _tokenizer_class(self, path: Path, settings: dict[str, Any]) -> str:
        """The class that the settings name, else "Pegasus" for a model that is one, else "".

        Raises:
            LSGError: the settings leave the order of the tokens open.
        """
        if settings.get("offset", PEGASUS_OFFSET) != PEGASUS_OFFSET:
            raise LSGError(
                f"a Pegasus tokenizer with offset {settings['offset']} is not supported, only {PEGASUS_OFFSET}"
            )
        named_class = settings.get("tokenizer_class") or ""
        if path.name == BPE_MODEL and order_of(named_class) is None:
            raise LSGError(
                f"{path} has XLMRoberta's or Camembert's order of tokens, or another: name the tokenizer_class in "
                f"tokenizer_config.json, which says {named_class!r}, or give a tokenizer.json"
            )
        model = self.processor
        is_pegasus = (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
        return named_class or ("Pegasus" if is_pegasus else "")

    def _split(self, text: str) -> list[str]:
        tokens, start = [], 0
        for match in self._pattern.finditer(text):
            found = self._named.get(match.group(), match.group())
            tokens += [*self._split_plain(text[start : match.start()]), found]
            start = match.end()
        return tokens + self._split_plain(text[start:])

    def _split_plain(self, text: str) -> list[str]:
        return [self.pieces[i] for i in self.processor.encode(text)]

    def _join(self, tokens: list[str]) -> str:
        parts: list[str] = []
        for verbatim, run in groupby(tokens, key=self._verbatim.__contains__):
            pieces = list(run)
            # sentencepiece drops the space in front of a sequence; inside the text it belongs there.
            space = " " if parts and not verbatim and pieces[0].startswith("▁") else ""
            parts.append("".join(pieces) if verbatim else space + self.processor.decode(pieces))
        return "".join(parts)
