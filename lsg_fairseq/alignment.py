"""Alignments (`--print-alignment`): the source tokens that the decoder attended to, for generated and given outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from fairseq.sequence_scorer import SequenceScorer
from fairseq.utils import extract_hard_alignment, extract_soft_alignment
from torch import Tensor, nn

from lsg_fairseq.generation import LSGSequenceGenerator

EXTRACTION = {"hard": extract_hard_alignment, "soft": extract_soft_alignment}


class AligningSequenceGenerator(LSGSequenceGenerator):
    """LSGSequenceGenerator whose hypotheses have an alignment, "hard" or "soft", as fairseq's have.

    fairseq's SequenceGeneratorWithAlignment does neither start nor force tokens as a model family needs it.
    """

    def __init__(self, models: list[nn.Module], tgt_dict: Any, print_alignment: str = "hard", **options: Any) -> None:
        super().__init__(models, tgt_dict, **options)
        self.model.gives_attention = True
        self.kind = print_alignment

    @torch.no_grad()
    def generate(self, models: list[nn.Module], sample: dict[str, Any], **kwargs: Any) -> list[list[dict[str, Tensor]]]:
        """fairseq's generate; `alignment` is that of each hypothesis."""
        with _giving_weights(self.model.models):
            hypotheses = super().generate(models, sample, **kwargs)
        for source, of_source in zip(sample["net_input"]["src_tokens"], hypotheses, strict=True):
            for hypothesis in of_source:
                # The generator keeps (T0,T); the extraction reads (T,T0).
                weights = hypothesis["attention"].transpose(0, 1)
                hypothesis["alignment"] = self._alignment(weights, source, hypothesis["tokens"])
        return hypotheses

    def _alignment(self, weights: Tensor, source: Tensor, tokens: Tensor) -> Any:
        return EXTRACTION[self.kind](weights.cpu(), source.cpu(), tokens.cpu(), self.pad, self.eos)


class SoftScorer(SequenceScorer):
    """fairseq's scorer of given outputs with soft alignments; it makes hard ones, which cannot be printed as soft."""

    def generate(self, models: list[nn.Module], sample: dict[str, Any], **kwargs: Any) -> list[list[dict[str, Any]]]:
        """fairseq's generate; `alignment` holds the probabilities of each token."""
        hypotheses = super().generate(models, sample, **kwargs)
        for source, target, (hypothesis,) in zip(
            sample["net_input"]["src_tokens"], sample["target"], hypotheses, strict=True
        ):
            hypothesis["alignment"] = extract_soft_alignment(
                hypothesis["attention"], source, target, self.pad, self.eos
            )
        return hypotheses


@contextmanager
def _giving_weights(models: Iterable[nn.Module]) -> Iterator[None]:
    """Attention weights during generation, which costs time and memory; afterwards as before."""
    attentions = [
        module for model in models for module in model.modules() if hasattr(module, "gives_weights_in_generation")
    ]
    before = [attention.gives_weights_in_generation for attention in attentions]
    try:
        for attention in attentions:
            attention.gives_weights_in_generation = True
        yield
    finally:
        for attention, gave in zip(attentions, before, strict=True):
            attention.gives_weights_in_generation = gave
