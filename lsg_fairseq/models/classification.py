"""Classification heads, on the decoder's final token (encoder-decoders) or on the encoder's first row."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fairseq.models.bart.model import BARTClassificationHead
from fairseq.models.roberta import RobertaModel
from torch import Tensor, nn

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import MAX_WIDTH, check_size

HEAD_WEIGHT = re.compile(r"classification_heads\.(.+)\.out_proj\.weight")


def register_head(model: nn.Module, name: str, num_classes: int, inner_dim: int | None = None) -> None:
    """Add a head (dense, activation, out_proj) as model.classification_heads[name], in the model's dtype and device.

    Args:
        inner_dim: output size of the dense layer; default: the model's width.

    Raises:
        LSGError: num_classes, inner_dim or the name is not allowed, or the name is taken.
    """
    check_size("num_classes", num_classes, 1, MAX_WIDTH)
    if inner_dim is not None:
        check_size("inner_dim", inner_dim, 1, MAX_WIDTH)
    if not isinstance(name, str) or not name or "." in name:
        raise LSGError(f"the name of a classification head must be a non-empty string without dots, not {name!r:.80}")
    if not hasattr(model, "classification_heads"):
        model.classification_heads = nn.ModuleDict()
    if name in model.classification_heads:
        raise LSGError(f"the model has a classification head {name!r} already: choose another name")
    if isinstance(model, RobertaModel):
        model.register_classification_head(name, num_classes, inner_dim)
    else:
        model.classification_heads[name] = _decoder_head(model, num_classes, inner_dim)
    model.classification_heads[name].to(next(model.parameters())).train(model.training)


def _decoder_head(model: nn.Module, num_classes: int, inner_dim: int | None) -> BARTClassificationHead:
    dim = model.decoder.embed_tokens.embedding_dim
    return BARTClassificationHead(
        input_dim=dim,
        inner_dim=inner_dim or dim,
        num_classes=num_classes,
        activation_fn=getattr(model.args, "pooler_activation_fn", "tanh"),
        pooler_dropout=getattr(model.args, "pooler_dropout", 0.0),
    )


def register_heads_of(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Add the classification heads that are among a checkpoint's weights and that the model lacks."""
    for key, weight in weights.items():
        if (match := HEAD_WEIGHT.fullmatch(key)) and match[1] not in getattr(model, "classification_heads", {}):
            inner = weights[f"classification_heads.{match[1]}.dense.weight"].size(0)
            register_head(model, match[1], weight.size(0), inner)


def final_token_states(features: Tensor, tokens: Tensor, eos: int) -> Tensor:
    """(B,T,C) decoder features of (B,T) tokens -> (B,C), the state at each row's last `</s>`.

    Raises:
        LSGError: a row has no `</s>`.
    """
    is_end = tokens.eq(eos)
    if not is_end.any(1).all():
        raise LSGError("each row of tokens must end with </s>, as encode() makes them: one of them has none")
    position = is_end.size(1) - 1 - is_end.flip(1).int().argmax(1)
    return features[range(len(tokens)), position]
