"""Pegasus in tokenizer.json: recognised by its vocabulary, and its two mask tokens under their own ids."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer, models

PEGASUS_CLASS, PEGASUS_MASK = "PegasusTokenizer", "<mask_2>"
# What the weights were trained with; transformers 5 (5.23) builds and saves the masks in the other order.
FRONT = ("<pad>", "</s>", "<mask_1>", "<mask_2>")
SWAPPED = {"<mask_1>": "<mask_2>", "<mask_2>": "<mask_1>"}
SWAPPED_FRONT = tuple(SWAPPED.get(token, token) for token in FRONT)


def is_pegasus(backend: Tokenizer) -> bool:
    """Whether the vocabulary starts as Pegasus' does, its masks in either order."""
    return isinstance(backend.model, models.Unigram) and _front(backend) in (FRONT, SWAPPED_FRONT)


def masks_are_swapped(backend: Tokenizer) -> bool:
    """Whether `<mask_2>` is id 2 and `<mask_1>` id 3, which is not what the rows of the weights stand for."""
    return _front(backend) == SWAPPED_FRONT


def swap_masks(backend: Tokenizer) -> Tokenizer:
    """The same tokenizer with the ids of the two masks exchanged."""
    content = json.loads(backend.to_str())
    for entry in content["added_tokens"]:
        entry["content"] = SWAPPED.get(entry["content"], entry["content"])
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = [[SWAPPED.get(token, token), score] for token, score in vocabulary]
    return Tokenizer.from_str(json.dumps(content, ensure_ascii=False))


def swap_decoder(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the contents of the masks exchanged in added_tokens_decoder, which states their ids too."""
    decoder = {index: dict(entry) for index, entry in settings.get("added_tokens_decoder", {}).items()}
    for entry in decoder.values():
        entry["content"] = SWAPPED.get(entry.get("content"), entry.get("content"))
    return settings | {"added_tokens_decoder": decoder}


def _front(backend: Tokenizer) -> tuple[str | None, ...]:
    return tuple(backend.id_to_token(i) for i in range(len(FRONT)))
