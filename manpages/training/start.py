"""The untrained summarizer: MiniLM as encoder and decoder, with the words of this corpus, in the folder DATA/start."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from benchmarks.files import sha256_of
from benchmarks.minilm import fetch_minilm
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.data.output_folder import written_aside
from lsg_fairseq.tokenization import load_tokenizer
from manpages.corpus.records import path_of, read_records
from manpages.training.copying import embedding_reader
from manpages.training.vocabulary import choose_pieces, count_pieces, read_pieces
from manpages.training.warm_start import write_start

START = "start"
CORPORA = ("descriptions_train", "train")
# A piece of a description is read and also written; one that is missing is spelled letter by letter.
SUMMARY_WEIGHT = 20
FITTED = 1000  # texts: about 60,000 tokens for 384 x 384 numbers


@dataclass(frozen=True)
class StartPlan:
    """What the model's size follows from."""

    vocabulary: int = 12000
    decoder_layers: tuple[int, ...] = (2, 5)  # the encoder's layers that they begin as
    positions: int = 512  # MiniLM's own
    longest: int = 4096  # tokens of a page that training reads


def make_start(data: Path, plan: StartPlan) -> None:
    """Write DATA/start, a folder as lsg-convert writes it, and DATA/start.json, unless both are there already.

    Raises:
        LSGError: the corpora are not prepared.
    """
    facts = {"plan": asdict(plan)} | {name: sha256_of([path_of(data, name)]) for name in CORPORA}
    written = json.dumps(facts, indent=1) + "\n"
    record = data / f"{START}.json"
    if record.is_file() and record.read_text() == written:
        return
    record.unlink(missing_ok=True)
    minilm = fetch_minilm(data / "minilm")
    pieces = choose_pieces(count_corpora(data, minilm, plan.longest), read_pieces(minilm), plan.vocabulary)
    with written_aside(data / START) as aside:
        short = aside / "short"
        short.mkdir()
        write_start(minilm, pieces, plan.decoder_layers, read_words(data, minilm), short)
        convert_checkpoint(short, aside / "lsg", plan.positions)
    record.write_text(written)


def read_words(data: Path, minilm: Path) -> tuple[Tensor, Tensor]:
    """What the decoder's attention over the source reads at first, fitted on a few texts; see copying.py."""
    records = read_records(data, CORPORA[0])[:FITTED]
    texts = tqdm((record["document"] for record in records), "reading words off MiniLM's output", len(records))
    return embedding_reader(minilm, load_tokenizer(minilm), texts)


def count_corpora(data: Path, minilm: Path, longest: int) -> Counter[str]:
    """How often the training files have each piece."""
    tokenizer = load_tokenizer(minilm)
    counts: Counter[str] = Counter()
    for name in CORPORA:
        records = read_records(data, name)
        documents = tqdm((record["document"] for record in records), f"counting words of {name}", len(records))
        counts += count_pieces(documents, tokenizer, longest)
        summaries = count_pieces((record["summary"] for record in records), tokenizer, longest)
        counts += Counter({piece: SUMMARY_WEIGHT * count for piece, count in summaries.items()})
    return counts
