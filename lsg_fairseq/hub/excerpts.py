"""Of a text far longer than what is read, the excerpts that are tokenised: enough of them for the part that is kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lsg_fairseq.data.kept_part import ENDS, HEAD, TAIL, keep

# Of a text with more than so many characters for each token that is read, excerpts alone are tokenised. Where one
# begins or ends, so many tokens may be others than in the whole text.
CHARACTERS_A_TOKEN, TORN_TOKENS = 32, 16


def kept_tokens(text: str, room: int, part: str, encode: Callable[[str], Tensor]) -> tuple[Tensor, int, bool]:
    """The ids (at most `room`) that are kept of a text, how many the whole text has, and whether that is estimated.

    What is kept is what would be kept of the whole text's ids; but the middle of a very long text is found by
    characters.
    """
    length = max(room, 1) * CHARACTERS_A_TOKEN
    while length < len(text):
        excerpts = _excerpts(text, length, part)
        ids = [encode(excerpt) for excerpt in excerpts]
        if all(len(each) > room + 2 * TORN_TOKENS for each in ids):
            number = sum(map(len, ids)) * len(text) // sum(map(len, excerpts))
            return _kept_of_excerpts(ids, room, part), number, True
        length *= 2  # mostly spaces, say
    whole = encode(text)
    return keep(whole, room, part), len(whole), False


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


def _kept_of_excerpts(ids: list[Tensor], room: int, part: str) -> Tensor:
    if part == ENDS:
        return torch.cat([keep(ids[0], room - room // 2, HEAD), keep(ids[1], room // 2, TAIL)])
    return keep(ids[0], room, part)


def _beginning(text: str, length: int) -> str:
    """The first `length` characters, or fewer so that no word is torn, if there is a space in the second half."""
    space = text.rfind(" ", length // 2, length)
    return text[: length if space < 0 else space]


def _ending(text: str, length: int) -> str:
    """The last `length` characters, or fewer so that it begins with the space in front of a word."""
    start = len(text) - length
    space = text.find(" ", start, start + length // 2)
    return text[start if space < 0 else space :]
