"""What conversions share: keys, whether weights are sound and fit a model, and moving rows of vocabulary tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import first_names

# fairseq's Dictionary starts with <s> <pad> </s> <unk>.
BOS_ROW = 0
PAD_ROW = 1

# The fairseq keys that a conversion treats specially.
TOKEN_TABLE = "encoder.embed_tokens.weight"
TIED_TABLES = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")
LOGITS_BIAS = "decoder.final_logits_bias"
SOURCE_POSITIONS = "encoder.embed_positions.weight"
TARGET_POSITIONS = "decoder.embed_positions.weight"
GLOBAL_TABLE = "encoder.global_embeddings.weight"
# Not a tensor of fairseq: an encoder's state dict has it between renaming and folding alone.
TOKEN_TYPES = "encoder.sentence_encoder.token_types.weight"
# What fairseq's `version` buffers hold.
FAIRSEQ_LAYER_FORMAT = 3.0
# fairseq's own default for --classification-head-name: Hugging Face's single head has no name.
HEAD_NAME = "sentence_classification_head"


class KeyPair(NamedTuple):
    """One tensor's two names and its shape in the symbols of a key table."""

    hf: str
    fairseq: str
    shape: tuple[str, ...]


def check_fit(
    what: str, state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[str]], sizes: Mapping[str, int]
) -> None:
    """Compare a state dict with the keys and shapes that a model needs.

    Args:
        what: names the state dict and the model in the message.
        shapes: key -> shape in symbols; a symbol that is not in `sizes` takes the size it has where it comes first.

    Raises:
        LSGError: names every missing, unexpected and misshapen key at once.
    """
    sizes = dict(sizes)
    for key, symbols in shapes.items():
        if key in state and state[key].dim() == len(symbols):
            for symbol, size in zip(symbols, state[key].shape, strict=True):
                sizes.setdefault(symbol, size)
    expected = {key: tuple(sizes.get(symbol, symbol) for symbol in symbols) for key, symbols in shapes.items()}
    misfit = describe_misfit(state, expected)
    if misfit:
        raise LSGError(f"{what} do not fit together ({misfit}): give the weights and the configuration of one model")


def describe_misfit(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int | str, ...]]) -> str:
    """Every key that a state dict lacks, has in excess, or has in another shape; "" where it fits."""
    misshapen = [key for key, shape in shapes.items() if key in state and tuple(state[key].shape) != shape]
    lists = {
        "missing": [key for key in shapes if key not in state],
        "unexpected": sorted(state.keys() - shapes.keys()),
        "misshapen": [f"{key} is {list(state[key].shape)} and not {list(shapes[key])}" for key in misshapen],
    }
    return "; ".join(f"{name}: {first_names(keys)}" for name, keys in lists.items() if keys)


def check_copies(
    reference: str,
    state: Mapping[str, Tensor],
    copies: Iterable[str],
    advice: str = "only models whose token embeddings and output projection are tied can be converted",
) -> None:
    """Make sure that the keys in `copies`, where present, hold what `reference` holds.

    Raises:
        LSGError: some do not; a model has one embedding table here, so untied tables would lose something.
    """
    untied = [key for key in copies if key in state and not _equal(state[key], state[reference])]
    if untied:
        raise LSGError(f"{first_names(untied)} must be equal to {reference}: {advice}")


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and left.dtype == right.dtype and torch.equal(left, right)


def num_fairseq_rows(rows: Tensor | None, vocab_size: int) -> int:
    """Return how many rows the fairseq table has: Hugging Face's, plus one where `rows` leaves `<pad>` free.

    Raises:
        LSGError: rows are not one different fairseq row for each of the vocab_size embedding rows, without gaps.
    """
    if rows is None:
        return vocab_size
    if rows.shape != (vocab_size,):
        raise LSGError(
            f"the checkpoint has {vocab_size} embedding rows and the tokenizer places {rows.numel()}: "
            "give the tokenizer files that belong to the checkpoint"
        )
    taken = set(rows.tolist())
    total = vocab_size + (PAD_ROW not in taken)
    if taken | {PAD_ROW} != set(range(total)) or BOS_ROW not in taken:
        raise LSGError(
            f"rows must give each of the {vocab_size} embedding rows its own place in 0..{total - 1}, and only "
            f"{PAD_ROW} (<pad>) may stay free: they take {len(taken)} places from {min(taken)} to {max(taken)}"
        )
    return total


def spread_rows(table: Tensor, rows: Tensor, fill: Tensor) -> Tensor:
    """Move row i of `table` [V, ...] to row rows[i] of the result; a row that stays free becomes `fill`."""
    spread = table.new_empty(num_fairseq_rows(rows, table.size(0)), *table.shape[1:])
    spread[PAD_ROW] = fill
    spread[rows] = table
    return spread


def only_head(keys: Iterable[str]) -> str | None:
    """Return the name of the one classification head that fairseq keys belong to, None where there is none.

    Raises:
        LSGError: there are several.
    """
    heads = sorted({key.split(".")[1] for key in keys if key.startswith("classification_heads.")})
    if len(heads) > 1:
        raise LSGError(
            f"a Hugging Face model has one classification head and this one has {len(heads)} ({', '.join(heads)}): "
            "remove all but one"
        )
    return heads[0] if heads else None


# --- what a weight may be: a dense tensor of finite floating-point numbers.

# Minus infinity there says that a token is never generated.
BIAS_OF_LOGITS = "final_logits_bias"


def check_kind(name: str, tensor: object) -> None:
    """Check that a weight is a dense tensor of real floating-point numbers.

    Raises:
        LSGError: it is integer, bool, complex, sparse, quantised, on the meta device, or not a tensor.
    """
    if not isinstance(tensor, Tensor):
        raise LSGError(f"{name} is not a tensor but a {type(tensor).__name__}: the checkpoint is damaged, or no model")
    if tensor.is_meta:
        raise LSGError(
            f"{name} has a shape and no numbers (a tensor on the meta device): give a checkpoint with weights"
        )
    if tensor.layout is torch.strided and tensor.is_floating_point() and not tensor.is_quantized:
        return
    kind = str(tensor.layout if tensor.layout is not torch.strided else tensor.dtype).removeprefix("torch.")
    raise LSGError(
        f"{name} holds {kind} numbers, and weights must be dense floating-point ones: give the checkpoint as it was "
        "before it was quantised or pruned"
    )


def check_values(state: Mapping[str, Tensor], source: str) -> None:
    """Check that all weights are finite floating-point numbers.

    Raises:
        LSGError: there is a NaN or an infinity, or a weight of another kind.
    """
    for name, tensor in state.items():
        check_kind(name, tensor)
    bad = [name for name, tensor in state.items() if not _is_usable(name, tensor)]
    if bad:
        raise LSGError(
            f"{source} has NaN or infinite values in {first_names(bad)}: its training diverged or the file was "
            "damaged before it came here; use another checkpoint"
        )


def _is_usable(name: str, tensor: Tensor) -> bool:
    if BIAS_OF_LOGITS in name:
        return not (tensor.isnan() | tensor.isposinf()).any()
    return bool(tensor.isfinite().all())
