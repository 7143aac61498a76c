"""What torch.hub.help says about an entry."""

from __future__ import annotations

from dataclasses import fields

from lsg_fairseq.hub.entry_checkpoints import EntryCheckpoint
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.weights.families import FAMILIES

HELP = """LSG-{family} that reads {length:,} tokens, {purpose}.

{origin}.

Args:
    checkpoint: what to load instead of these weights: a Hugging Face folder or hub id ({members};
        short or LSG; sizes come from its config.json), a fairseq model.pt, a folder that lsg-convert wrote, or a
        training folder (checkpoint_best.pt, else checkpoint_last.pt). A path is tried before a hub id. If it was
        trained with attention or an architecture of your own, import the module that registers it first.
    tokenizer: folder of the tokenizer, where it is not found with the checkpoint.
    revision: branch, tag or commit of a hub id.
    max_source_positions: longest document in tokens, `<s>` and `</s>` included. More than the checkpoint has: its
        position tables are lengthened. Less: {too_long}.
    attention_probs_dropout_prob: dropout of the attention (in training).
    lsg_num_pre_rounds: the model cards' name of lsh_num_pre_rounds.
{fields}

What is not given stays as the checkpoint has it. sparsity_type=None means "none".{note}

Returns:
    {returns}

Raises:
    LSGError: a name or a value is not allowed (the sentence names those that are), or there is no such checkpoint.

Example:
    lsg = torch.hub.load("lsg_fairseq", "{entry}", source="local", trust_repo=True)  # the folder of the checkout
    {example}
"""


# What differs between encoder-decoders and encoders alone; the names are those of HELP.
ENCODER_DECODER = {
    "too_long": "documents are cut",
    "returns": """LSGHubInterface, in evaluation mode: .summarize(text), .encode, .decode, .extract_features,
    .fill_mask, .register_classification_head, .predict, and fairseq's .model and .task.""",
    "example": "print(lsg.summarize(document))",
    "note": "",
}
ENCODER = {
    "too_long": "longer documents are refused",
    "returns": """LSGEncoderHubInterface, in evaluation mode: .extract_features(tokens), .fill_mask(text), .encode,
    .decode, .collate, .register_classification_head, .predict, and fairseq's .model and .task.""",
    "example": "features = lsg.extract_features(lsg.encode(document))  # (1, tokens, width)",
    "note": " Global tokens have no\nrows in the output: pass_global_tokens_to_decoder cannot be true.",
}


def documentation(entry: str, checkpoint: EntryCheckpoint) -> str:
    """The docstring of the entry that stands for a checkpoint of the table."""
    family = FAMILIES[checkpoint.family]
    made = [f"made from {checkpoint.made_from}"] if checkpoint.made_from else []
    trained = [f"fine-tuned on {checkpoint.fine_tuned_on}"] if checkpoint.fine_tuned_on else []
    return HELP.format(
        entry=entry,
        family=family.title,
        members=family.members,
        length=checkpoint.max_source_positions,
        purpose=", ".join(made + trained) or "not fine-tuned",
        origin=checkpoint.origin,
        fields="\n".join(f"    {f.name}: {f.metadata['help']}." for f in fields(LSGConfig)),
        **(ENCODER_DECODER if family.has_decoder else ENCODER),
    )
