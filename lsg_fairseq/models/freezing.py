"""Freezing the encoder or the token embeddings, for instance to train a new decoder for a pretrained encoder."""

from __future__ import annotations

from torch import nn

from lsg_fairseq.models.lsg_encoder import LSGEncoder
from lsg_fairseq.modules.lsg_config import LSGError


def freeze_encoder(model: nn.Module) -> None:
    """Exclude the encoder from training, except token embeddings that it shares with the decoder.

    Raises:
        LSGError: the model has no LSG encoder.
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, LSGEncoder):
        raise LSGError(
            f"--freeze-encoder is for the encoder-decoders of this package, not for {type(model).__name__}; leave it "
            "out, or choose an architecture that starts with lsg_bart, lsg_mbart or lsg_pegasus"
        )
    encoder.freeze()
    if any(parameter is encoder.embed_tokens.weight for parameter in model.decoder.parameters()):
        encoder.embed_tokens.requires_grad_(True)


def freeze_embeddings(model: nn.Module) -> None:
    """Exclude the token embeddings of encoder and decoder from training, and an output projection tied to them."""
    model.encoder.embed_tokens.requires_grad_(False)
    model.decoder.embed_tokens.requires_grad_(False)
