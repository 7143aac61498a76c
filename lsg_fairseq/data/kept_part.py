"""Which part of a document is kept where it is longer than what the model reads."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError

HEAD, TAIL, ENDS, MIDDLE = "head", "tail", "ends", "middle"
PARTS = (HEAD, TAIL, ENDS, MIDDLE)
PARTS_HELP = (
    "what is kept of a document that is longer than the model reads: head, its first tokens; tail, its last; ends, "
    "first and last, half of the room each (the middle is cut out); middle, as much from its middle"
)
# The name under which a checkpoint keeps the part that it was trained on.
PART_STATE = "keep_part"


def check_part(part: object, where: str) -> None:
    """Refuse what is no part.

    Raises:
        LSGError: it is none.
    """
    if part is not None and part not in PARTS:
        raise LSGError(f"{where} must be {', '.join(PARTS[:-1])} or {PARTS[-1]}, not {part!r:.80}")


@dataclass
class KeptPart:
    """The part that a task keeps: what its user chose, else the data's own, else the checkpoint's, else the head.

    Raises:
        LSGError: the choice is no part.
    """

    chosen: str | None = None
    of_checkpoint: str | None = None

    def __post_init__(self) -> None:
        check_part(self.chosen, "keep_part")
        check_part(self.of_checkpoint, "the checkpoint's keep_part")

    def with_checkpoint(self, part: str | None) -> KeptPart:
        """The same for one more checkpoint, whose part this is (None: it does not say).

        Raises:
            LSGError: it is no part, or another than that of an ensemble's checkpoint before it, and none was chosen.
        """
        known = self.of_checkpoint
        if None not in (part, known) and part != known and self.chosen is None:
            raise LSGError(f"the checkpoints read different parts of documents ({known}, {part}): name a --keep-part")
        return KeptPart(self.chosen, known if part is None else part)

    def of(self, data: str | None = None) -> str:
        """The part for data that was made for one, or for none (None)."""
        return self.chosen or data or self.of_checkpoint or HEAD


def kept_slices(length: int, room: int, part: str) -> list[slice]:
    """Which of `length` tokens are kept where there is room for `room`; of an odd room the beginning has more."""
    if length <= room:
        return [slice(0, length)]
    if part == TAIL:
        return [slice(length - room, length)]
    if part == ENDS:
        return [slice(0, room - room // 2), slice(length - room // 2, length)]
    start = (length - room) // 2 if part == MIDDLE else 0
    return [slice(start, start + room)]


def keep(tokens: Tensor, room: int, part: str) -> Tensor:
    """The (min(n, room),) tokens that are kept of (n,)."""
    slices = kept_slices(len(tokens), room, part)
    return tokens[slices[0]] if len(slices) == 1 else torch.cat([tokens[each] for each in slices])


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
