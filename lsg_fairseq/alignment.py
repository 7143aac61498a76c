"""Alignments (`--print-alignment`) of generated and given outputs: the source tokens that the decoder attended to."""

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
    """An LSGSequenceGenerator that adds fairseq's alignments, "hard" or "soft", to its hypotheses.

    fairseq's SequenceGeneratorWithAlignment supports neither the start tokens nor the forced tokens of model families.
    """

    def __init__(self, models: list[nn.Module], tgt_dict: Any, print_alignment: str = "hard", **options: Any) -> None:
        super().__init__(models, tgt_dict, **options)
        self.model.gives_attention = True
        self.kind = print_alignment

    @torch.no_grad()
    def generate(self, models: list[nn.Module], sample: dict[str, Any], **kwargs: Any) -> list[list[dict[str, Tensor]]]:
        """fairseq's generate; each hypothesis also gets its `alignment`."""
        with _giving_weights(self.model.models):
            hypotheses = super().generate(models, sample, **kwargs)
        for source, of_source in zip(sample["net_input"]["src_tokens"], hypotheses, strict=True):
            for hypothesis in of_source:
                # The generator stores (src_len, tgt_len); the extraction takes (tgt_len, src_len).
                weights = hypothesis["attention"].transpose(0, 1).cpu()
                tokens = hypothesis["tokens"].cpu()
                hypothesis["alignment"] = EXTRACTION[self.kind](weights, source.cpu(), tokens, self.pad, self.eos)
        return hypotheses


class SoftScorer(SequenceScorer):
    """fairseq's scorer of given outputs, but with soft alignments instead of hard ones."""

    def generate(self, models: list[nn.Module], sample: dict[str, Any], **kwargs: Any) -> list[list[dict[str, Any]]]:
        """fairseq's generate; `alignment` has the attention probabilities of each token."""
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
    """Make the models return attention weights during the block, which takes time and memory."""
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
