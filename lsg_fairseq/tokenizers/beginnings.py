"""Of a text that is far longer than what is read, the beginning alone is tokenised: a token takes 200 bytes."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TypeVar

# So many characters for each token that is read. Where the beginning ends, the last tokens may be others than in the
# whole text.
CHARACTERS_A_TOKEN, TORN_TOKENS = 32, 16
Tokens = TypeVar("Tokens", bound=Sized)


def encode_beginning(encode: Callable[[str], Tokens], text: str, room: int) -> tuple[Tokens, int | None]:
    """The tokens of a text, or of a beginning with more of them than `room`.

    Also about how many the whole text has; None where these are all.
    """
    length = room * CHARACTERS_A_TOKEN
    while length < len(text):
        beginning = whole_words(text, length)
        tokens = encode(beginning)
        if len(tokens) > room + TORN_TOKENS:
            return tokens, len(tokens) * len(text) // len(beginning)
        length *= 2  # mostly spaces, say
    return encode(text), None


def whole_words(text: str, length: int) -> str:
    """The first `length` characters, or fewer so that no word is torn, if there is a space in the second half."""
    space = text.rfind(" ", length // 2, length)
    return text[: length if space < 0 else space]
