"""Beam search for LSG models: fairseq's, with the first and last tokens a checkpoint forces, and no traces left behind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fairseq.sequence_generator import EnsembleModel, SequenceGenerator
from torch import Tensor, nn


class ForcingEnsemble(EnsembleModel):
    """fairseq's ensemble, in which a forced token has score 0, as in transformers, rather than its log-probability.

    fairseq's prefix_tokens would keep log p(prefix) in a hypothesis' score and change the ranking.
    """

    def __init__(self, models: list[nn.Module], forced_first_token: int | None) -> None:
        super().__init__(models)
        self.forced_first_token = forced_first_token

    def forward_decoder(
        self, tokens: Tensor, encoder_outs: Any, incremental_states: Any, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (B*beam,V) of the next token; the first one is certain if a token is forced."""
        log_probs, attention = super().forward_decoder(tokens, encoder_outs, incremental_states, temperature)
        if self.forced_first_token is not None and tokens.size(1) == 1:
            log_probs = log_probs.new_full(log_probs.shape, -math.inf)
            log_probs[:, self.forced_first_token] = 0.0
        return log_probs, attention


class LSGSequenceGenerator(SequenceGenerator):
    """fairseq's generator, started with the model family's own first token.

    Args:
        models, tgt_dict: as for fairseq's generator.
        decoder_start: symbol that the decoder's input begins with.
        forced_first_token: id of the token that every output begins with, or None.
        options: fairseq's SequenceGenerator options (beam_size, len_penalty, max_len_b, ...).

    After each generation, and after an exception in one, the decoders are back at one beam: fairseq leaves them at the
    last beam size, where a direct forward of a batch attends to every beam-th source only, without an error.
    """

    def __init__(
        self,
        models: list[nn.Module],
        tgt_dict: Any,
        decoder_start: str = "</s>",
        forced_first_token: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(ForcingEnsemble(models, forced_first_token), tgt_dict, **options)
        self.decoder_start_token = tgt_dict.index(decoder_start)
        self.model.train(any(model.training for model in models))
        _set_beam_size(self.model.models, 1)

    def _generate(self, sample: dict[str, Any], *args: Any, bos_token: int | None = None, **kwargs: Any) -> Any:
        start = self.decoder_start_token if bos_token is None else bos_token
        with _beams(self.model.models, self.beam_size):
            return super()._generate(sample, *args, bos_token=start, **kwargs)


@contextmanager
def _beams(models: nn.ModuleList, beam_size: int) -> Iterator[None]:
    """Evaluation mode with beams sharing their source; both undone afterwards, whatever happens."""
    were_training = [model.training for model in models]
    _set_beam_size(models, beam_size)
    try:
        models.eval()
        yield
    finally:
        _set_beam_size(models, 1)
        for model, was_training in zip(models, were_training, strict=True):
            model.train(was_training)


def _set_beam_size(models: nn.ModuleList, beam_size: int) -> None:
    for model in models:
        if hasattr(model, "set_beam_size"):
            model.set_beam_size(beam_size)
