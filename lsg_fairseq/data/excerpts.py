"""Of a text far longer than what is read, the excerpts that are tokenised: enough of them for the part that is kept."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TypeVar

from lsg_fairseq.data.kept_part import ENDS, HEAD, TAIL

# Of a text with more than so many characters for each token that is read, excerpts alone are tokenised. Where one
# begins or ends, so many tokens may be others than in the whole text.
CHARACTERS_A_TOKEN, TORN_TOKENS = 32, 16


Tokens = TypeVar("Tokens", bound=Sized)


def pieces_to_read(text: str, room: int, part: str, encode: Callable[[str], Tokens]) -> tuple[list[Tokens], int | None]:
    """The tokens of a text in one piece, or of excerpts of a text that is far longer than `room` tokens.

    What is kept of the pieces, one behind the other, is what would be kept of the whole text's tokens; but the middle
    of a very long text is found by characters. Also about how many tokens the whole text has; None: these are all.
    """
    length = max(room, 1) * CHARACTERS_A_TOKEN
    while length < len(text):
        excerpts = _excerpts(text, length, part)
        pieces = [encode(excerpt) for excerpt in excerpts]
        if all(len(each) > room + 2 * TORN_TOKENS for each in pieces):
            return pieces, sum(map(len, pieces)) * len(text) // sum(map(len, excerpts))
        length *= 2  # mostly spaces, say
    return [encode(text)], None


def _excerpts(text: str, length: int, part: str) -> list[str]:
    """Pieces of about `length` characters, without torn words where there are spaces."""
    if part == ENDS:
        return [_beginning(text, length), _ending(text, length)]
    if part == HEAD:
        return [_beginning(text, length)]
    if part == TAIL:
        return [_ending(text, length)]
    start = (len(text) - length) // 2
    return [text[start : start + length]]


def _beginning(text: str, length: int) -> str:
    """The first `length` characters, or fewer so that no word is torn, if there is a space in the second half."""
    space = text.rfind(" ", length // 2, length)
    return text[: length if space < 0 else space]


def _ending(text: str, length: int) -> str:
    """The last `length` characters, or fewer so that it begins with the space in front of a word."""
    start = len(text) - length
    space = text.find(" ", start, start + length // 2)
    return text[start if space < 0 else space :]
