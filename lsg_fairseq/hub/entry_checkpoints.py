"""The checkpoints behind the torch.hub entries, and what torch.hub.help says about them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.weights.families import FAMILIES, PUBLISHER


@dataclass(frozen=True)
class EntryCheckpoint:
    """The weights of an entry: their length in tokens, and what they were made from and fine-tuned on ("": nothing).

    `name` is a repository of PUBLISHER on the Hugging Face hub or, if `is_bundled`, a folder of this package.
    `made_from` is the model that the checkpoint's page or name says.
    """

    name: str
    family: str
    max_source_positions: int
    fine_tuned_on: str = ""
    made_from: str = ""
    is_bundled: bool = False

    @property
    def location(self) -> str:
        """The path of the folder, or the repository on the Hugging Face hub."""
        return str(Path(__file__).parent / self.name) if self.is_bundled else f"{PUBLISHER}/{self.name}"

    @property
    def origin(self) -> str:
        """Where the weights come from and their licence, as a sentence."""
        if self.is_bundled:
            return (
                f"Weights: in this package, nothing is downloaded ({self.location}; its README.md states the licences)"
            )
        return f"Published weights: {self.location} (https://huggingface.co/{self.location}; licence: none stated)"


# The default checkpoint of lsg-summarize.
DEFAULT_ENTRY = "lsg_bart_manpages"
_ROWS = (
    # entry of hubconf.py, repository or folder, family, tokens, what it was fine-tuned on, what it was made from
    (DEFAULT_ENTRY, DEFAULT_ENTRY, "bart", 4096, "manual pages and their one-line descriptions", "all-MiniLM-L6-v2"),
    ("lsg_bart_base", "lsg-bart-base-4096", "bart", 4096),
    ("lsg_bart_large", "lsg-bart-large-4096", "bart", 4096),
    ("lsg_pegasus_large", "lsg-pegasus-large-4096", "pegasus", 4096),
    ("lsg_bart_base_16384", "lsg-bart-base-16384", "bart", 16384),
    ("lsg_bart_base_4096_arxiv", "lsg-bart-base-4096-arxiv", "bart", 4096, "scientific_papers (arxiv)"),
    ("lsg_bart_base_4096_pubmed", "lsg-bart-base-4096-pubmed", "bart", 4096, "scientific_papers (pubmed)"),
    ("lsg_bart_base_4096_mediasum", "lsg-bart-base-4096-mediasum", "bart", 4096, "ccdv/mediasum (roberta_prepended)"),
    ("lsg_bart_base_4096_multinews", "lsg-bart-base-4096-multinews", "bart", 4096, "multi_news"),
    ("lsg_bart_base_4096_wcep", "lsg-bart-base-4096-wcep", "bart", 4096, "ccdv/WCEP-10"),
    ("lsg_bart_base_4096_booksum", "lsg-bart-base-4096-booksum", "bart", 4096, "kmfoda/booksum"),
    ("lsg_bart_base_16384_arxiv", "lsg-bart-base-16384-arxiv", "bart", 16384, "scientific_papers (arxiv)"),
    ("lsg_bart_base_16384_pubmed", "lsg-bart-base-16384-pubmed", "bart", 16384, "scientific_papers (pubmed)"),
    ("lsg_bart_base_16384_mediasum", "lsg-bart-base-16384-mediasum", "bart", 16384, "ccdv/mediasum"),
    ("lsg_barthez", "lsg-barthez-4096", "mbart", 4096, "", "BARThez (moussaKam/barthez)"),
    ("lsg_roberta_base", "lsg-base-4096", "roberta", 4096, "", "RoBERTa-base, trained further on 16 GB of text"),
    ("lsg_distilroberta_base", "lsg-distilroberta-base-4096", "roberta", 4096, "", "distilroberta-base"),
    ("lsg_xlm_roberta_base", "lsg-xlm-roberta-base-4096", "roberta", 4096, "", "xlm-roberta-base"),
    ("lsg_camembert_base", "lsg-camembert-base-4096", "roberta", 4096, "", "camembert-base"),
    ("lsg_distilcamembert_base", "lsg-distilcamembert-base-4096", "roberta", 4096, "", "distilcamembert-base"),
    ("lsg_bert_base", "lsg-bert-base-uncased-4096", "bert", 4096, "", "bert-base-uncased"),
    ("lsg_distilbert_base", "lsg-distilbert-base-uncased-4096", "bert", 4096, "", "distilbert-base-uncased"),
    ("lsg_legal_base", "lsg-legal-base-uncased-4096", "bert", 4096, "", "LEGAL-BERT (nlpaueb/legal-bert-base-uncased)"),
    ("lsg_legal_small", "lsg-legal-small-uncased-4096", "bert", 4096, "", "LEGAL-BERT small"),
)
ENTRY_CHECKPOINTS: dict[str, EntryCheckpoint] = {
    entry: EntryCheckpoint(*row, is_bundled=entry == DEFAULT_ENTRY) for entry, *row in _ROWS
}
ENTRY_LOCATIONS = {name: checkpoint.location for name, checkpoint in ENTRY_CHECKPOINTS.items()}


# --- the help of an entry.

HELP = """LSG-{family} that reads {length:,} tokens, {purpose}.

{origin}.

Args:
    checkpoint: what to load instead of these weights: a Hugging Face folder or hub id ({members};
        short or LSG; sizes come from its config.json), a fairseq model.pt, a folder that lsg-convert wrote, or a
        training folder (checkpoint_best.pt, else checkpoint_last.pt). A path is tried before a hub id. If it was
        trained with your own attention or architecture, import the module that registers it first.
    tokenizer: folder of the tokenizer, if it is not found with the checkpoint.
    revision: branch, tag or commit of a hub id.
    max_source_positions: longest document in tokens, including `<s>` and `</s>`. If this is more than the checkpoint
        has, its position tables are lengthened; if less, {too_long}.
    attention_probs_dropout_prob: dropout of the attention (in training).
    lsg_num_pre_rounds: the model cards' name of lsh_num_pre_rounds.
{fields}

Settings that are not given are the checkpoint's. sparsity_type=None means "none".{note}

Returns:
    {returns}

Raises:
    LSGError: a name or a value is not allowed (the error lists those that are), or there is no such checkpoint.

Example:
    lsg = torch.hub.load("lsg_fairseq", "{entry}", source="local", trust_repo=True)  # the folder of the checkout
    {example}
"""


# The fields of HELP that differ between encoder-decoders and encoder-only models.
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
    "note": " The output has no\nrows for global tokens: pass_global_tokens_to_decoder cannot be true.",
}


def documentation(entry: str, checkpoint: EntryCheckpoint) -> str:
    """The docstring of an entry."""
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
