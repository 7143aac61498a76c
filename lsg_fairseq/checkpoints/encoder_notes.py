"""What becomes of the parts of a Hugging Face encoder that fairseq's RoBERTa has no place of the same name for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lsg_fairseq.huggingface.encoder_heads import full_names, parts_of_hf
from lsg_fairseq.huggingface.encoder_keys import layout_of
from lsg_fairseq.huggingface.encoder_weights import NOT_CARRIED
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.state_dicts import HEAD_NAME

HEAD_NOTES = {
    "pooler": "the pooler is kept as the classification head 'pooler', with the identity as its output layer",
    "nsp": "the pooler and next-sentence prediction are kept as the classification head 'next_sentence'",
    "bert classes": f"the pooler is kept as the first layer of the classification head {HEAD_NAME!r}",
}


def encoder_notes(tensors: Mapping[str, Tensor], spec: ModelSpec) -> list[str]:
    """One sentence for each part that changes its place, is missing, or is left behind."""
    layout = layout_of(spec)
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
