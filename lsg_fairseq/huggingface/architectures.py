"""Which head a checkpoint has, as config.json's `architectures` says: tensors of other heads have the same names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lsg_fairseq.modules.lsg_config import LSGError

# The tasks whose heads are read, as the names of transformers' classes end.
TASKS = (
    *("MaskedLM", "CausalLM", "PreTraining", "NextSentencePrediction"),
    *("SequenceClassification", "ConditionalGeneration"),
)
# What the names of a head's tensors start with that could be taken for a sequence classifier's.
HEADS = ("classifier.", "pre_classifier.", "classification_head.", "qa_outputs.", "sequence_summary.")


def check_head(config: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a head for another task than those that are read here.

    Token classification that was saved with BERT's pooler, and multiple choice, have a sequence classifier's tensors.

    Args:
        names: the checkpoint's tensors.

    Raises:
        LSGError: `architectures` names such a task, and the tensors of its head are there.
    """
    stated = config.get("architectures")
    known = [str(name) for name in stated] if isinstance(stated, list) else []
    others = [name for name in known if (task := _task_of(name)) and task not in TASKS]
    head = sorted({name.split(".")[0] for name in names if name.startswith(HEADS)})
    if others and len(others) == len(known) and head:
        raise LSGError(
            f"the checkpoint is a {others[0]}, whose head ({', '.join(head)}) has no counterpart here: only heads for "
            "language modelling and sequence classification are read; without it, as AutoModel.from_pretrained(...)"
            ".save_pretrained(...) writes it, the model can be converted"
        )


def _task_of(class_name: str) -> str:
    """What follows the last `For` of a class of transformers, "" where it is a bare model."""
    match = re.search(r"For([A-Z]\w*)$", class_name)
    return match[1] if match else ""
