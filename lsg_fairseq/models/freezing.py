"""Training the decoder alone, for the first steps of one that is new."""

from __future__ import annotations

from torch import nn

from lsg_fairseq.models.lsg_encoder import LSGEncoder
from lsg_fairseq.modules.lsg_config import LSGError


def freeze_encoder(model: nn.Module) -> None:
    """Exclude a model's encoder from training.

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
