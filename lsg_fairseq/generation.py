"""Beam search for LSG models: fairseq's, with the first and last tokens a checkpoint forces, and no traces left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fairseq.sequence_generator import EnsembleModel, SequenceGenerator
from torch import Tensor, nn

from lsg_fairseq.modules.lsg_config import LSGError


class ForcingEnsemble(EnsembleModel):
    """fairseq's ensemble, in which a forced token has score 0, as in transformers, rather than its log-probability.

    fairseq's own ways to force tokens, prefix_tokens and the end at max_len, keep their log-probabilities in a
    hypothesis' score, which changes the ranking.

    Attention weights are not passed on unless gives_attention: the generator would keep one for each source position,
    output position and beam, and reorder them all at every step.
    """

    gives_attention = False

    def __init__(self, models: list[nn.Module], first: int | None, last: int | None) -> None:
        super().__init__(models)
        self.first, self.last = first, last
        # The step at which the generator ends an output; it sets this for each batch.
        self.last_step: int | None = None

    def forward_decoder(
        self, tokens: Tensor, encoder_outs: Any, incremental_states: Any, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (B*beam,V) of the next token, a forced one certain, and attention (B*beam,T0) or None."""
        log_probs, attention = super().forward_decoder(tokens, encoder_outs, incremental_states, temperature)
        token = self._forced_at(tokens.size(1) - 1)
        if token is not None:
            log_probs = log_probs.new_full(log_probs.shape, -math.inf)
            log_probs[:, token] = 0.0
        return log_probs, attention if self.gives_attention else None

    def _forced_at(self, step: int) -> int | None:
        if step == self.last_step and self.last is not None:
            return self.last
        return self.first if step == 0 else None


class RepeatBlock(nn.Module):
    """Forbid tokens that would repeat an n-gram of their hypothesis.

    fairseq's own NGramRepeatBlock looks at the end of the whole buffer, which is padding still, and so blocks nothing
    unless its CUDA extension was built.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, tokens: Tensor, log_probs: Tensor, bsz: int, beam_size: int, step: int) -> Tensor:
        """Log-probabilities (B*beam,V) after the first step+1 of `tokens` (B*beam,T), changed in place."""
        known = tokens[:, 1 : step + 1]  # what starts the decoder is no token of the output, and BART's is its end
        if known.size(1) < self.size:
            return log_probs
        ngrams = known.unfold(1, self.size, 1)
        last = known[:, known.size(1) - self.size + 1 :]
        rows, columns = (ngrams[..., :-1] == last[:, None]).all(-1).nonzero(as_tuple=True)
        log_probs[rows, ngrams[rows, columns, -1]] = -math.inf
        return log_probs


class LSGSequenceGenerator(SequenceGenerator):
    """fairseq's generator, started with the model family's own first token.

    Args:
        models, tgt_dict: as for fairseq's generator.
        decoder_start: symbol that the decoder's input begins with.
        forced_first_token: id of the token that every output begins with, or None.
        forced_last_token: id of the token (`</s>`) that ends an output of maximum length, or None: it is `</s>` then
            too, but at the price of its log-probability.
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
        forced_last_token: int | None = None,
        **options: Any,
    ) -> None:
        were_training = [model.training for model in models]
        super().__init__(ForcingEnsemble(models, forced_first_token, forced_last_token), tgt_dict, **options)
        self.decoder_start_token = tgt_dict.index(decoder_start)
        if self.repeat_ngram_blocker is not None:
            self.repeat_ngram_blocker = RepeatBlock(self.repeat_ngram_blocker.no_repeat_ngram_size)
        # fairseq switches to evaluation for good as soon as a generator is made.
        for model, was_training in zip(models, were_training, strict=True):
            model.train(was_training)
        _set_beam_size(self.model.models, 1)

    def _generate(self, sample: dict[str, Any], *args: Any, bos_token: int | None = None, **kwargs: Any) -> Any:
        start = self.decoder_start_token if bos_token is None else bos_token
        self.model.last_step = self._max_len(sample["net_input"])
        if self.min_len > self.model.last_step:
            raise LSGError(
                f"outputs must have at least {self.min_len} tokens and at most {self.model.last_step}: lower the "
                "minimum (--min-len), raise the maximum (--max-len-b), or use a model with more target positions"
            )
        with _beams(self.model.models, self.beam_size):
            return super()._generate(sample, *args, bos_token=start, **kwargs)

    def _max_len(self, net_input: dict[str, Tensor]) -> int:
        """The number of tokens before `</s>` at which fairseq ends the outputs of a batch."""
        wanted = int(self.max_len_a * net_input["src_tokens"].size(1) + self.max_len_b)
        if self.match_source_len:
            wanted = int(net_input["src_lengths"].max())
        return min(wanted, self.max_len - 1)


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
