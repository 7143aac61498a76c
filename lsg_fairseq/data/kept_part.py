"""Which part of a document is kept if it is longer than the model reads, and which part of its text is tokenised."""

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
    "what is kept of a document longer than the model reads: head, its first tokens; tail, its last; ends, half of "
    "each (the middle is cut out); middle, the tokens in its middle"
)
# The key under which a checkpoint stores the part that it was trained on.
PART_STATE = "keep_part"
# Texts with more characters than this per token that is read are not tokenised whole, only excerpts of them. The first
# and last TORN_TOKENS tokens of an excerpt may differ from those of the whole text.
CHARACTERS_A_TOKEN, TORN_TOKENS = 32, 16

Tokens = TypeVar("Tokens", bound=Sized)


def check_part(part: object, where: str) -> None:
    """Refuse a value that is neither None nor one of PARTS; `where` names the setting in the error.

    Raises:
        LSGError: it is neither.
    """
    if part is not None and part not in PARTS:
        raise LSGError(f"{where} must be {', '.join(PARTS[:-1])} or {PARTS[-1]}, not {part!r:.80}")


@dataclass
class KeptPart:
    """The part that a task keeps: the user's choice, else the data's, else the checkpoint's, else the head.

    Raises:
        LSGError: a value is not one of PARTS.
    """

    chosen: str | None = None
    of_checkpoint: str | None = None

    def __post_init__(self) -> None:
        check_part(self.chosen, "keep_part")
        check_part(self.of_checkpoint, "the checkpoint's keep_part")

    def with_checkpoint(self, part: str | None) -> KeptPart:
        """A copy that takes one more checkpoint into account; `part` is the checkpoint's, None if it has none.

        Raises:
            LSGError: it is not one of PARTS, or differs from that of the ensemble's other checkpoints and the user
                chose none.
        """
        known = self.of_checkpoint
        if None not in (part, known) and part != known and self.chosen is None:
            raise LSGError(f"the checkpoints read different parts of documents ({known}, {part}): give --keep-part")
        return KeptPart(self.chosen, known if part is None else part)

    def of(self, data: str | None = None) -> str:
        """The part for data that were made for the part `data` (None: for no particular one)."""
        return self.chosen or data or self.of_checkpoint or HEAD


def kept_slices(length: int, room: int, part: str) -> list[slice]:
    """The slices of `length` tokens that are kept in a room of `room` tokens; if that is odd, ENDS keeps a token more
    of the beginning."""
    if length <= room:
        return [slice(0, length)]
    if part == TAIL:
        return [slice(length - room, length)]
    if part == ENDS:
        return [slice(0, room - room // 2), slice(length - room // 2, length)]
    start = (length - room) // 2 if part == MIDDLE else 0
    return [slice(start, start + room)]


def keep(tokens: Tensor, room: int, part: str) -> Tensor:
    """Cut tokens (n,) to the (min(n, room),) that are kept."""
    slices = kept_slices(len(tokens), room, part)
    return tokens[slices[0]] if len(slices) == 1 else torch.cat([tokens[each] for each in slices])


def pieces_to_read(text: str, room: int, part: str, encode: Callable[[str], Tokens]) -> tuple[list[Tokens], int | None]:
    """Tokenise a text; if it is far longer than `room` tokens, only excerpts that hold the part that is kept.

    Applied to the concatenated pieces, `keep` gives what it would give for the whole text. MIDDLE is an exception: the
    middle of a very long text is located by characters.

    Returns:
        The tokens, in one or more pieces, and the estimated number of tokens of the whole text; None if the pieces are
        the whole text.
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
    """Pieces of about `length` characters, cut at spaces if there are any."""
    if part == ENDS:
        return [_beginning(text, length), _ending(text, length)]
    if part == HEAD:
        return [_beginning(text, length)]
    if part == TAIL:
        return [_ending(text, length)]
    start = (len(text) - length) // 2
    return [text[start : start + length]]


def _beginning(text: str, length: int) -> str:
    """The first `length` characters, up to the last space among them if that is in their second half."""
    space = text.rfind(" ", length // 2, length)
    return text[: length if space < 0 else space]


def _ending(text: str, length: int) -> str:
    """The last `length` characters, from the first space among them if that is in their first half."""
    start = len(text) - length
    space = text.find(" ", start, start + length // 2)
    return text[start if space < 0 else space :]
