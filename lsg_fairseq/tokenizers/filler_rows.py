"""Embedding rows without a token: tables padded to a multiple of 8 or 64, or published with more rows than tokens.

They take filler symbols in the vocabulary, so that every row is kept; no text has them, and decoding leaves them out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import check_file

# Beside a converted model's tokenizer files, none of which says how many rows the model has.
ROWS_FILE, ROWS_FIELD = "embedding_rows.json", "embedding_rows"
# A Hugging Face folder's own statement.
CONFIG_FILE, CONFIG_FIELD = "config.json", "vocab_size"
FILLER = re.compile(r"<no_token_\d+>")
# dbmdz' Italian BERTs have 1,000 rows more than 31,102 tokens; with far more the tokenizer is another model's.
FEW_ROWS, FEW_PARTS = 64, 10


def filler(index: int) -> str:
    """The symbol of the embedding row `index`."""
    return f"<no_token_{index}>"


def are_fillers(rows: int, tokens: int) -> bool:
    """Whether so many rows can be those of a model with a tokenizer of so many tokens."""
    return tokens <= rows <= tokens + max(FEW_ROWS, tokens // FEW_PARTS)


def check_gaps(largest_id: int, tokens: int) -> None:
    """Refuse ids with more gaps between them than tokens: every gap takes a row, and one wrong id makes a billion.

    Raises:
        LSGError: there are so many.
    """
    if largest_id >= 2 * tokens + FEW_ROWS:
        raise LSGError(
            f"the largest id of the vocabulary's {tokens} tokens is {largest_id}: the ids are damaged, or most of the "
            "tokens are missing; download the tokenizer again"
        )


def stated_rows(folder: Path, tokens: int) -> int:
    """How many embedding rows a tokenizer folder, or the Hugging Face model in it, says that there are.

    Raises:
        LSGError: ROWS_FILE is damaged, or states a number that does not go with the tokens.
    """
    own = _stated(folder / ROWS_FILE, ROWS_FIELD)
    if (folder / ROWS_FILE).is_file() and not (type(own) is int and are_fillers(own, tokens)):
        raise LSGError(
            f"{folder / ROWS_FILE} must state {ROWS_FIELD} as an integer from {tokens}, the number of tokens, to "
            f"{tokens + max(FEW_ROWS, tokens // FEW_PARTS)}, not {own!r:.80}: convert the checkpoint again"
        )
    # A checkpoint's own number that does not go with the tokens is a matter for whoever opens the checkpoint.
    candidates = (own, _stated(folder / CONFIG_FILE, CONFIG_FIELD))
    return next((rows for rows in candidates if type(rows) is int and are_fillers(rows, tokens)), tokens)


def save_rows(rows: int, folder: Path) -> None:
    """Write ROWS_FILE."""
    (folder / ROWS_FILE).write_text(json.dumps({ROWS_FIELD: rows}) + "\n", encoding="utf-8")


def _stated(path: Path, field: str) -> object:
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content.get(field) if isinstance(content, dict) else None
