"""Checks what a command needs of its data before fairseq fails for lack of a summary or a constraint."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq.data import LanguagePairDataset
from fairseq.search import LexicallyConstrainedBeamSearch
from omegaconf import DictConfig

from lsg_fairseq.modules.lsg_config import LSGError

REMEDY = "make the data again from records with a summary (lsg-preprocess --summary-field)"


def require_summaries(sample: Mapping[str, Any]) -> None:
    """Refuse a batch of documents alone; an empty batch is fairseq's way to keep workers in step."""
    if sample and sample.get("target") is None:
        raise LSGError(f"these documents have no summaries, and training and validation need them: {REMEDY}")


def require_summaries_for(args: Namespace | DictConfig, datasets: Mapping[str, LanguagePairDataset]) -> None:
    """Refuse the generation settings that read summaries, where a split has none."""
    flags = [name for name in ("prefix_size", "score_reference") if getattr(args, name, None)]
    without = [split for split, dataset in datasets.items() if getattr(dataset, "tgt", None) is None]
    if flags and without:
        names = " and ".join("--" + flag.replace("_", "-") for flag in flags)
        raise LSGError(f"{names} needs summaries, and the documents of {' and '.join(without)} have none: {REMEDY}")


def require_hard_alignment(alignment: str | None) -> None:
    """Refuse soft alignments where they cannot be printed: fairseq-interactive writes pairs of positions alone."""
    if alignment == "soft" and Path(sys.argv[0]).name == "fairseq-interactive":
        raise LSGError("fairseq-interactive prints hard alignments only: --print-alignment hard, or fairseq-generate")


def require_constraints(generator: Any, constraints: Any) -> None:
    """Refuse --constraints in a command that reads binarized data, which has no place for them."""
    if constraints is None and isinstance(getattr(generator, "search", None), LexicallyConstrainedBeamSearch):
        raise LSGError(
            "--constraints are read by fairseq-interactive alone: each line is a document, and the constraints follow "
            "it, with a tab in front of each"
        )
