"""MiniLM's WordPiece vocabulary cut to what a corpus needs: its most frequent pieces, and every character in it.

WordPiece takes the longest piece it knows, so a word whose piece went is spelled with shorter ones. A piece that starts
a word and one inside a word ("##") are different entries, and a character stays in both, so nothing becomes unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import WORDPIECE_FILE
from lsg_fairseq.tokenizers.fairseq_bpe import DocumentTokenizer
from lsg_fairseq.tokenizers.wordpiece import CONTINUATION

# The order of fairseq's Dictionary, so that a Hugging Face id is a row of it; [MASK] comes last, as BART's does.
FIRST, LAST = ("[CLS]", "[PAD]", "[SEP]", "[UNK]"), ("[MASK]",)
SETTINGS = """{
 "tokenizer_class": "BertTokenizer",
 "do_lower_case": true,
 "tokenize_chinese_chars": true,
 "strip_accents": null,
 "cls_token": "[CLS]",
 "pad_token": "[PAD]",
 "sep_token": "[SEP]",
 "unk_token": "[UNK]",
 "mask_token": "[MASK]"
}
"""


def count_pieces(texts: Iterable[str], tokenizer: DocumentTokenizer, longest: int) -> Counter[str]:
    """How often each piece stands in the texts' first `longest` pieces."""
    counts: Counter[str] = Counter()
    for text in texts:
        # A word is a piece at least, and splitting megabytes to count a few thousand pieces would take minutes.
        words = " ".join(text.split(None, longest)[:longest])
        counts.update(tokenizer.encode(words)[:longest])
    return counts


def read_pieces(folder: Path) -> list[str]:
    """The entries of vocab.txt, by their ids."""
    return [piece for _, piece in read_lines(folder / WORDPIECE_FILE)]


def choose_pieces(counts: Counter[str], known: Sequence[str], size: int) -> list[str]:
    """At most `size` entries: specials, the characters that occur, and the most frequent pieces, in their old order.

    Raises:
        LSGError: `size` has no room for specials and characters.
    """
    specials = {*FIRST, *LAST}
    # Ties are broken by the old order, so that the same corpus always gives the same vocabulary.
    place = {piece: number for number, piece in enumerate(known)}
    found = [piece for piece in counts if piece in place and piece not in specials]
    letters = set("".join(piece.removeprefix(CONTINUATION) for piece in found))
    kept = {piece for piece in known if piece.removeprefix(CONTINUATION) in letters}
    room = size - len(specials) - len(kept)
    if room < 0:
        raise LSGError(f"a vocabulary of {size} has no room for {len(kept)} characters: give {size - room} or more")
    others = [piece for piece in found if piece not in kept]
    kept.update(sorted(others, key=lambda piece: (-counts[piece], place[piece]))[:room])
    return [*FIRST, *(piece for piece in known if piece in kept), *LAST]


def write_vocabulary(pieces: Sequence[str], folder: Path) -> None:
    """The files of a Hugging Face BertTokenizer: vocab.txt and its settings."""
    (folder / WORDPIECE_FILE).write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(SETTINGS, encoding="utf-8")
