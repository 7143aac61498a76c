"""Beam search for LSG models: fairseq's, with a checkpoint's forced tokens, and without side effects on the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fairseq.search import BeamSearch
from fairseq.sequence_generator import EnsembleModel, SequenceGenerator
from torch import Tensor, nn

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.modules.packed_linear import packed_weights
from lsg_fairseq.weights.limits import check_number

# fairseq's names of the settings that a search is built with, and those of the generator's own options.
OPTIONS = {"beam": "beam_size", "lenpen": "len_penalty", "temperature": "temperature", "unkpen": "unk_penalty"}
OPTIONS |= {name: name for name in ("min_len", "max_len_a", "max_len_b", "no_repeat_ngram_size")}


class ForcingEnsemble(EnsembleModel):
    """fairseq's ensemble, in which a forced token has score 0, as in transformers, rather than its log-probability.

    fairseq's own ways to force tokens, prefix_tokens and the end at max_len, keep their log-probabilities in a
    hypothesis' score, which changes the ranking.

    Attention weights are not passed on unless gives_attention: the generator would keep one for each source position,
    output position and beam, and reorder them all at every step.
    """

    gives_attention = False

    def __init__(self, models: list[nn.Module], first: int | Tensor | None, last: int | None) -> None:
        super().__init__(models)
        self.first, self.last = first, last
        # The step at which the generator ends an output; it sets this for each batch.
        self.last_step: int | None = None

    def forward_decoder(
        self, tokens: Tensor, encoder_outs: Any, incremental_states: Any, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (B*beam,V) of the next token, a forced one certain, and attention (B*beam,T0) or None."""
        if self._is_plain(temperature):
            log_probs, attention = self._next_log_probs(tokens, encoder_outs[0], incremental_states[0]), None
        else:
            log_probs, attention = super().forward_decoder(tokens, encoder_outs, incremental_states, temperature)
        token = self._forced_at(tokens.size(1) - 1)
        if token is not None:
            log_probs = log_probs.new_full(log_probs.shape, -math.inf)
            log_probs.scatter_(1, torch.as_tensor(token, device=log_probs.device).expand(len(log_probs))[:, None], 0.0)
        return log_probs, attention if self.gives_attention else None

    def _is_plain(self, temperature: float) -> bool:
        """Whether this is one model's own distribution, without temperature or attention."""
        is_alone = self.models_size == 1 and self.has_encoder() and self.has_incremental_states()
        return is_alone and temperature == 1.0 and not self.gives_attention

    def _next_log_probs(self, tokens: Tensor, encoder_out: Any, incremental_state: Any) -> Tensor:
        """The only model's log-probabilities (B*beam,V), without fairseq's division of all logits by 1."""
        logits, extra = self.single_model.decoder(tokens, encoder_out=encoder_out, incremental_state=incremental_state)
        output = (logits[:, -1:], extra)
        return self.single_model.get_normalized_probs(output, log_probs=True, sample=None)[:, -1]

    def _forced_at(self, step: int) -> int | Tensor | None:
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
        known = tokens[:, 1 : step + 1]  # the decoder's start is no output token, though BART's is </s>
        if known.size(1) < self.size:
            return log_probs
        ngrams = known.unfold(1, self.size, 1)
        last = known[:, known.size(1) - self.size + 1 :]
        rows, columns = (ngrams[..., :-1] == last[:, None]).all(-1).nonzero(as_tuple=True)
        log_probs[rows, ngrams[rows, columns, -1]] = -math.inf
        return log_probs


class RowwiseBeamSearch(BeamSearch):
    """fairseq's beam search, which adds a hypothesis' score to its best continuations only, not to the vocabulary."""

    def step(
        self,
        step: int,
        lprobs: Tensor,
        scores: Tensor | None,
        prev_output_tokens: Tensor | None = None,
        original_batch_idxs: Tensor | None = None,
        candidate_multiple: int = 2,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best candidates (B,K) of log-probabilities (B,beams,V): their scores, tokens and beams."""
        _, beams, vocab_size = lprobs.shape
        count = candidate_multiple * beams
        if step == 0 or count >= vocab_size:
            args = (prev_output_tokens, original_batch_idxs, candidate_multiple)
            return super().step(step, lprobs, scores, *args)
        best, tokens = lprobs.topk(count)
        best = best + scores[:, :, step - 1, None]
        best, places = best.flatten(1).topk(count)
        return best, tokens.flatten(1).gather(1, places), places.div(count, rounding_mode="trunc")


class LSGSequenceGenerator(SequenceGenerator):
    """fairseq's generator, started with the model family's own first token.

    Args:
        models, tgt_dict: as for fairseq's generator.
        decoder_start: symbol that the decoder's input begins with; None: each sample has its own.
        forced_first_token: id of the token that every output begins with, or None.
        forced_last_token: id of the token (`</s>`) that ends an output of maximum length, or None: it is `</s>` then
            too, but at the price of its log-probability.
        as_int8: multiply by weights rounded to 8 bits, and keep keys and values of the source in bfloat16: for models
            in float32 on CPUs.
        options: fairseq's SequenceGenerator options (beam_size, len_penalty, max_len_b, ...).

    Raises:
        LSGError: an option is out of range.

    A sample may have (B,) tokens of its own for the decoder's start and the forced first token: `decoder_start` and
    `forced_first`.

    After each generation, and after an exception in one, the decoders are back at one beam: fairseq leaves them at the
    last beam size, where a direct forward of a batch attends to every beam-th source only, without an error.
    """

    def __init__(
        self,
        models: list[nn.Module],
        tgt_dict: Any,
        decoder_start: str | None = "</s>",
        forced_first_token: int | None = None,
        forced_last_token: int | None = None,
        as_int8: bool = False,
        **options: Any,
    ) -> None:
        for name, option in OPTIONS.items():
            if option in options:
                check_number(name, options[option])
        were_training = [model.training for model in models]
        super().__init__(ForcingEnsemble(models, forced_first_token, forced_last_token), tgt_dict, **options)
        if type(self.search) is BeamSearch:
            self.search = RowwiseBeamSearch(tgt_dict)
        self.as_int8 = as_int8
        self.decoder_start_token = None if decoder_start is None else tgt_dict.index(decoder_start)
        if self.repeat_ngram_blocker is not None:
            self.repeat_ngram_blocker = RepeatBlock(self.repeat_ngram_blocker.no_repeat_ngram_size)
        # fairseq switches to evaluation for good as soon as a generator is made.
        for model, was_training in zip(models, were_training, strict=True):
            model.train(was_training)
        _set_beam_size(self.model.models, 1)

    def _generate(self, sample: dict[str, Any], *args: Any, bos_token: int | None = None, **kwargs: Any) -> Any:
        start = sample.get("decoder_start", self.decoder_start_token) if bos_token is None else bos_token
        if start is None:
            raise LSGError("the language of the outputs is not settled: name it, such as --target-lang-token en_XX")
        start = start.repeat_interleave(self.beam_size) if isinstance(start, Tensor) else start
        self.model.last_step = self._max_len(sample["net_input"])
        if self.min_len > self.model.last_step:
            raise LSGError(
                f"outputs must have at least {self.min_len} tokens and at most {self.model.last_step}: lower the "
                "minimum (--min-len), raise the maximum (--max-len-b), or use a model with more target positions"
            )
        beams, weights = _beams(self.model.models, self.beam_size), _weights(self.model.models, self.as_int8)
        with beams, weights, self._forcing(sample.get("forced_first")):
            return super()._generate(sample, *args, bos_token=start, **kwargs)

    @contextmanager
    def _forcing(self, first: Tensor | None) -> Iterator[None]:
        """Force each output of a batch to begin with its own token of (B,), if given."""
        usual = self.model.first
        try:
            if first is not None:
                self.model.first = first.repeat_interleave(self.beam_size)
            yield
        finally:
            self.model.first = usual

    def _max_len(self, net_input: dict[str, Tensor]) -> int:
        """The number of tokens before `</s>` at which fairseq ends the outputs of a batch."""
        wanted = int(self.max_len_a * net_input["src_tokens"].size(1) + self.max_len_b)
        if self.match_source_len:
            wanted = int(net_input["src_lengths"].max())
        return min(wanted, self.max_len - 1)


@contextmanager
def _beams(models: nn.ModuleList, beam_size: int) -> Iterator[None]:
    """Evaluation mode, with the beams of a document sharing its source; both are undone on exit."""
    were_training = [model.training for model in models]
    _set_beam_size(models, beam_size)
    try:
        models.eval()
        yield
    finally:
        _set_beam_size(models, 1)
        for model, was_training in zip(models, were_training, strict=True):
            model.train(was_training)


@contextmanager
def _weights(models: nn.ModuleList, as_int8: bool) -> Iterator[None]:
    """Pack the weights; with as_int8 to 8 bits, and keep the sources' keys and values in bfloat16."""
    if as_int8:
        _check_for_int8(models)
    dtype = torch.bfloat16 if as_int8 else None
    with packed_weights(models, as_int8):
        try:
            _set_source_dtype(models, dtype)
            yield
        finally:
            _set_source_dtype(models, None)


def _check_for_int8(models: nn.ModuleList) -> None:
    kinds = {f"{p.dtype} on {p.device.type}".removeprefix("torch.") for p in models.parameters()}
    if kinds != {"float32 on cpu"}:
        raise LSGError(f"int8 weights are made of float32 models on CPUs, not of {', '.join(sorted(kinds))}")


def _set_source_dtype(models: nn.ModuleList, dtype: torch.dtype | None) -> None:
    for model in models:
        if hasattr(model, "set_source_dtype"):
            model.set_source_dtype(dtype)


def _set_beam_size(models: nn.ModuleList, beam_size: int) -> None:
    for model in models:
        if hasattr(model, "set_beam_size"):
            model.set_beam_size(beam_size)
