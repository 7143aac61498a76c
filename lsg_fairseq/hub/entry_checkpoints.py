"""The LSG checkpoints that the hub entries stand for, in one table: one in this package, and the published ones.

The published ones were confirmed from the publisher's own list of models (https://huggingface.co/ccdv/models) and the
pages of each of them. Left out, because there is no such model here: lsg-albert-base-v2-4096. None of these pages
states a licence; the code behind the checkpoints (lsg-converter) is MIT, and the weights descend from the models of
their names: facebook/bart-base, google/pegasus-large, bert-base-uncased and so on (LEGAL-BERT's own licence is CC BY-SA
4.0). Ask the publisher before you pass them on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lsg_fairseq.weights.families import PUBLISHER


@dataclass(frozen=True)
class EntryCheckpoint:
    """Where an entry's weights come from, how much they read, what they were made from and fine-tuned on ("": nothing).

    `name` is a repository of the publisher's, or a folder of this package where `is_bundled`. `made_from` is what the
    checkpoint's page says, or its name.
    """

    name: str
    family: str
    max_source_positions: int
    fine_tuned_on: str = ""
    made_from: str = ""
    is_bundled: bool = False

    @property
    def location(self) -> str:
        """What find_checkpoint takes: a path, or a repository on the Hugging Face hub."""
        return str(Path(__file__).parent / self.name) if self.is_bundled else f"{PUBLISHER}/{self.name}"

    @property
    def origin(self) -> str:
        """Where the weights are and under which licence, for people."""
        if self.is_bundled:
            return (
                f"Weights: in this package, nothing is downloaded ({self.location}; its README.md states the licences)"
            )
        return f"Published weights: {self.location} (https://huggingface.co/{self.location}; licence: none stated)"


# What lsg-summarize loads when no checkpoint is named.
DEFAULT_ENTRY = "lsg_bart_manpages"

# fmt: off
# Entry of hubconf.py                               repository or folder             family     tokens  fine-tuned on
ENTRY_CHECKPOINTS: dict[str, EntryCheckpoint] = {
    DEFAULT_ENTRY: EntryCheckpoint(                 DEFAULT_ENTRY,                   "bart",     4096,
                                                    "manual pages and their one-line descriptions",
                                                    made_from="all-MiniLM-L6-v2", is_bundled=True),
    "lsg_bart_base": EntryCheckpoint(               "lsg-bart-base-4096",            "bart",     4096),
    "lsg_bart_large": EntryCheckpoint(              "lsg-bart-large-4096",           "bart",     4096),
    "lsg_pegasus_large": EntryCheckpoint(           "lsg-pegasus-large-4096",        "pegasus",  4096),
    "lsg_bart_base_16384": EntryCheckpoint(         "lsg-bart-base-16384",           "bart",    16384),
    "lsg_bart_base_4096_arxiv": EntryCheckpoint(
                                                    "lsg-bart-base-4096-arxiv",      "bart",     4096,
                                                    "scientific_papers (arxiv)"),
    "lsg_bart_base_4096_pubmed": EntryCheckpoint(
                                                    "lsg-bart-base-4096-pubmed",     "bart",     4096,
                                                    "scientific_papers (pubmed)"),
    "lsg_bart_base_4096_mediasum": EntryCheckpoint(
                                                    "lsg-bart-base-4096-mediasum",   "bart",     4096,
                                                    "ccdv/mediasum (roberta_prepended)"),
    "lsg_bart_base_4096_multinews": EntryCheckpoint(
                                                    "lsg-bart-base-4096-multinews",  "bart",     4096,
                                                    "multi_news"),
    "lsg_bart_base_4096_wcep": EntryCheckpoint(
                                                    "lsg-bart-base-4096-wcep",       "bart",     4096,
                                                    "ccdv/WCEP-10"),
    "lsg_bart_base_4096_booksum": EntryCheckpoint(
                                                    "lsg-bart-base-4096-booksum",    "bart",     4096,
                                                    "kmfoda/booksum"),
    "lsg_bart_base_16384_arxiv": EntryCheckpoint(
                                                    "lsg-bart-base-16384-arxiv",     "bart",    16384,
                                                    "scientific_papers (arxiv)"),
    "lsg_bart_base_16384_pubmed": EntryCheckpoint(
                                                    "lsg-bart-base-16384-pubmed",    "bart",    16384,
                                                    "scientific_papers (pubmed)"),
    "lsg_bart_base_16384_mediasum": EntryCheckpoint(
                                                    "lsg-bart-base-16384-mediasum",  "bart",    16384,
                                                    "ccdv/mediasum"),
    "lsg_barthez": EntryCheckpoint(                 "lsg-barthez-4096",              "mbart",    4096,
                                                    made_from="BARThez (moussaKam/barthez)"),
    "lsg_roberta_base": EntryCheckpoint(            "lsg-base-4096",                 "roberta",  4096,
                                                    made_from="RoBERTa-base, trained further on 16 GB of text"),
    "lsg_distilroberta_base": EntryCheckpoint(      "lsg-distilroberta-base-4096",   "roberta",  4096,
                                                    made_from="distilroberta-base"),
    "lsg_xlm_roberta_base": EntryCheckpoint(        "lsg-xlm-roberta-base-4096",     "roberta",  4096,
                                                    made_from="xlm-roberta-base"),
    "lsg_camembert_base": EntryCheckpoint(          "lsg-camembert-base-4096",       "roberta",  4096,
                                                    made_from="camembert-base"),
    "lsg_distilcamembert_base": EntryCheckpoint(    "lsg-distilcamembert-base-4096", "roberta",  4096,
                                                    made_from="distilcamembert-base"),
    "lsg_bert_base": EntryCheckpoint(               "lsg-bert-base-uncased-4096",    "bert",     4096,
                                                    made_from="bert-base-uncased"),
    "lsg_distilbert_base": EntryCheckpoint(         "lsg-distilbert-base-uncased-4096", "bert",  4096,
                                                    made_from="distilbert-base-uncased"),
    "lsg_legal_base": EntryCheckpoint(              "lsg-legal-base-uncased-4096",   "bert",     4096,
                                                    made_from="LEGAL-BERT (nlpaueb/legal-bert-base-uncased)"),
    "lsg_legal_small": EntryCheckpoint(             "lsg-legal-small-uncased-4096",  "bert",     4096,
                                                    made_from="LEGAL-BERT small"),
}
# fmt: on
ENTRY_LOCATIONS = {name: checkpoint.location for name, checkpoint in ENTRY_CHECKPOINTS.items()}
