"""Which heads an encoder's state dict has, in Hugging Face's names and in fairseq's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from lsg_fairseq.huggingface.encoder_keys import KeyLayout, key_layout_of
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.state_dicts import HEAD_NAME, only_head
from lsg_fairseq.weights.upgrade_roberta import LM_HEAD

# fairseq heads that hold what Hugging Face has without a classifier.
POOLER, NEXT_SENTENCE = "classification_heads.pooler.", "classification_heads.next_sentence."
# TensorFlow's names of a layer norm's weight and bias, which the oldest files have.
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
# A head that fairseq has nothing for: ELECTRA's discriminator says of each token whether it was replaced.
NOT_CARRIED = ("discriminator_predictions.",)
HEAD_NOTES = {
    "pooler": "the pooler is kept as the classification head 'pooler', with the identity as its output layer",
    "nsp": "the pooler and next-sentence prediction are kept as the classification head 'next_sentence'",
    "bert classes": f"the pooler is kept as the first layer of the classification head {HEAD_NAME!r}",
}


def full_names(names: Iterable[str], layout: KeyLayout) -> dict[str, str]:
    """A checkpoint's own names -> today's, with the model's prefix, which a checkpoint without a head is without."""
    names = list(names)
    is_bare = not any(name.startswith(f"{layout.prefix}.") for name in names)
    parts = ("embeddings.", "pooler.", layout.layer_names)
    full = {}
    for name in names:
        old = next((old for old in OLD_NAMES if name.endswith(old)), "")
        today = name.removesuffix(old) + OLD_NAMES.get(old, "")
        full[name] = f"{layout.prefix}.{today}" if is_bare and name.startswith(parts) else today
    return full


def parts_of_hf(names: Iterable[str], layout: KeyLayout) -> frozenset[str]:
    """The tags of ENCODER_KEY_TABLE for the heads that tensors of these names make up."""
    full = list(full_names(names, layout).values())

    def has(*starts: str) -> bool:
        return any(name.startswith(starts) for name in full)

    parts = {layout.lm} if has(*layout.lm_starts) else set()
    if has("classifier.", "pre_classifier."):
        parts.add(layout.classes)
    if "bert classes" not in parts:  # whose first layer is the pooler
        if has("cls.seq_relationship."):
            parts.add("nsp")
        elif has(f"{layout.prefix}.pooler."):
            parts.add("pooler")
    return frozenset(parts)


def split_heads(state: Mapping[str, Tensor], layout: KeyLayout) -> tuple[dict[str, Tensor], frozenset[str], str | None]:
    """Take the identity behind a pooler out of a fairseq state dict.

    Returns:
        the state dict, the tags of its heads, and the name of its classifier, None where it has none.

    Raises:
        LSGError: there is more than one classifier, or two heads need BERT's one pooler.
    """
    state = dict(state)
    parts = {layout.lm} if any(key.startswith(LM_HEAD) for key in state) else set()
    if layout.has_pooler and _is_plain_pooler(state):
        parts.add("pooler")
        for key in identity_behind_pooler(state[POOLER + "dense.weight"]):
            del state[key]
    if layout.has_next_sentence and len(state.get(NEXT_SENTENCE + "out_proj.bias", ())) == 2:
        parts.add("nsp")
    special = tuple(start for start, tag in ((POOLER, "pooler"), (NEXT_SENTENCE, "nsp")) if tag in parts)
    head = only_head(key for key in state if not key.startswith(special))
    if head:
        parts.add(layout.classes)
    if len(parts & {"bert classes", "pooler", "nsp"}) > 1:
        names = sorted({key.split(".")[1] for key in state if key.startswith("classification_heads.")})
        raise LSGError(
            f"a Hugging Face BERT has one pooler, and {len(names)} classification heads need it ({', '.join(names)}): "
            "remove all but one"
        )
    return state, frozenset(parts), head


def identity_behind_pooler(weight: Tensor) -> dict[str, Tensor]:
    """The output layer that makes a classification head of a pooler [C, C] without changing a digit."""
    size = len(weight)
    return {POOLER + "out_proj.weight": torch.eye(size).to(weight), POOLER + "out_proj.bias": weight.new_zeros(size)}


def _is_plain_pooler(state: Mapping[str, Tensor]) -> bool:
    weight = state.get(POOLER + "dense.weight")
    if weight is None:
        return False
    return all(key in state and torch.equal(state[key], t) for key, t in identity_behind_pooler(weight).items())


def encoder_notes(tensors: Mapping[str, Tensor], spec: ModelSpec) -> list[str]:
    """One sentence for each part that changes its place, is missing, or is left behind."""
    layout = key_layout_of(spec)
    names, parts = full_names(tensors, layout), parts_of_hf(tensors, layout)
    notes = [note for part, note in HEAD_NOTES.items() if part in parts]
    if layout.lm not in parts:
        notes.append("there is no masked-LM head: a model that is loaded gets an untrained one")
    types = next(
        (tensors[name] for name, full in names.items() if full.endswith(".token_type_embeddings.weight")), None
    )
    if types is not None and types[0].any():
        notes.append("the embedding of token type 0 is added to the positions, as fairseq has no token types")
    if spec.token_types > 1:
        notes.append(f"token types other than 0 are not carried ({spec.token_types - 1} of {spec.token_types} rows)")
    lost = sorted(name for name in tensors if name.startswith(NOT_CARRIED))
    if lost:
        notes.append(f"the discriminator's own head has no counterpart and is not carried: {', '.join(lost)}")
    return notes
