"""Parts of a model that training leaves as they are: for a decoder that is new beside a pretrained encoder."""

from __future__ import annotations

from torch import nn

from lsg_fairseq.models.lsg_encoder import LSGEncoder
from lsg_fairseq.modules.lsg_config import LSGError


def freeze_encoder(model: nn.Module) -> None:
    """Exclude the encoder from training, but for token embeddings that the decoder shares: those it still trains.

    Raises:
        LSGError: the model has no LSG encoder.
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, LSGEncoder):
        raise LSGError(
            f"--freeze-encoder is for the encoder-decoders of this package, not for {type(model).__name__}; leave it "
            "out, or choose an architecture that starts with lsg_bart or lsg_pegasus"
        )
    encoder.freeze()
    if any(parameter is encoder.embed_tokens.weight for parameter in model.decoder.parameters()):
        encoder.embed_tokens.requires_grad_(True)


def freeze_embeddings(model: nn.Module) -> None:
    """Exclude the token embeddings of both sides from training, and an output projection that shares them."""
    model.encoder.embed_tokens.requires_grad_(False)
    model.decoder.embed_tokens.requires_grad_(False)
