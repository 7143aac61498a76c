"""Hugging Face checkpoints that cannot be converted as they are: what they are, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.families import MODEL_TYPES

# --- folders without a checkpoint of their own.

ADAPTER_FILE = "adapter_config.json"
# sentence-transformers used to keep its transformer in a folder of its own.
TRANSFORMER_CONFIG = re.compile(r"(\d+_\w*Transformer)/config\.json")


def describe_foreign(where: object, names: Collection[str]) -> str | None:
    """One sentence about a folder or repository without a checkpoint of its own; None where it is nothing known.

    Args:
        where: what the user calls it.
        names: the paths of its files, in it.
    """
    if ADAPTER_FILE in names:
        return (
            f"{where} is a PEFT adapter ({ADAPTER_FILE}), the changes to a model and not the model: merge it into its "
            "base first, PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(FOLDER), save the "
            "tokenizer into FOLDER too, and give FOLDER"
        )
    inside = next((match[1] for name in sorted(names) if (match := TRANSFORMER_CONFIG.fullmatch(name))), None)
    if inside:
        return (
            f"{where} is a sentence-transformers model, whose transformer is in its folder {inside}: give that folder "
            "(of a copy on this machine); the layers behind it, such as pooling, are not read"
        )
    return None


def names_in(folder: Path) -> list[str]:
    """The paths of a folder's files, and of those in its folders."""
    found = [*folder.glob("*"), *folder.glob("*/*")] if folder.is_dir() else []
    return [path.relative_to(folder).as_posix() for path in found if path.is_file()]


def advise_model_type(config: Mapping[str, Any]) -> str:
    """What to do about a config.json without model_type: the type that its `architectures` belong to, if they do."""
    stated = config.get("architectures")
    classes = [str(name).removeprefix("LSG") for name in stated] if isinstance(stated, list) else []
    fitting = [
        kind
        for _, kind in MODEL_TYPES.values()
        if any(re.match(rf"{kind.class_name}(For[A-Z]|Model$|LMHead)", name) for name in classes)
    ]
    if fitting:
        return (
            f'its architectures ({", ".join(classes)}) are those of {fitting[0].name!r}: add "model_type": '
            f'"{fitting[0].name}" to it'
        )
    return f'add "model_type" to it, one of {", ".join(MODEL_TYPES)}, as the kind of the weights is'


# --- heads for other tasks, whose tensors have the names of those that are read.

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
