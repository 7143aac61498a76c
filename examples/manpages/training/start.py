"""The untrained summarizer: MiniLM as encoder and decoder, with the words of this corpus, in the folder DATA/start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from examples.manpages.corpus.pages import Record, path_of, read_records
from examples.manpages.training import warm_start
from examples.manpages.training.lineage import Facts, check_trained, is_made_from, make_room, write_facts
from examples.manpages.training.warm_start import (
    choose_pieces,
    count_pieces,
    embedding_reader,
    read_pieces,
    write_start,
)
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer
from recipes.files import sha256_of
from recipes.minilm import WHEEL_SHA256, fetch_minilm

START = "start"
CORPORA = ("descriptions_train", "train")
# A piece of a description is read and also written; one that is missing is spelled letter by letter.
SUMMARY_WEIGHT = 20
FITTED = 1000  # texts: about 85,000 tokens for 384 x 384 numbers


@dataclass(frozen=True)
class StartPlan:
    """What the model's size follows from."""

    vocabulary: int = 12000
    decoder_layers: tuple[int, ...] = (2, 5)  # the encoder's layers that they begin as
    positions: int = 512  # MiniLM's own
    longest: int = 4096  # tokens of a page that training reads


def start_facts(data: Path, plan: StartPlan) -> Facts:
    """All that the start follows from.

    Raises:
        LSGError: the corpora are not prepared.
    """
    return {
        "plan": asdict(plan),
        "corpora": {name: sha256_of([path_of(data, name)]) for name in CORPORA},
        "minilm": WHEEL_SHA256,
        "vocabulary": {"summary_weight": SUMMARY_WEIGHT, "settings": warm_start.SETTINGS},
        "values": {"texts": FITTED, "tokens": warm_start.LONGEST, "ridge": warm_start.RIDGE},
        "drawn": {"std": warm_start.INITIAL_STD, "seed": warm_start.SEED},
    }


def make_start(data: Path, plan: StartPlan, trained: Sequence[Path] = ()) -> Facts:
    """Write DATA/start, a folder as lsg-convert writes it, unless it is there already; what it follows from.

    Raises:
        LSGError: the corpora are not prepared, or a folder of `trained` (in their order) began as another start.
    """
    facts = start_facts(data, plan)
    check_trained(trained, [{"start": facts}] * len(trained))
    folder = data / START
    if not (is_made_from(folder, facts) and (folder / "lsg" / "model.pt").is_file()):
        minilm = fetch_minilm(data / "minilm")
        pieces = choose_pieces(count_corpora(data, minilm, plan.longest), read_pieces(minilm), plan.vocabulary)
        make_room(folder)  # nothing of another start stays in the new one
        with staged_output(folder) as aside:
            short = aside / "short"
            short.mkdir()
            write_start(minilm, pieces, plan.decoder_layers, read_words(data, minilm), short)
            convert_checkpoint(short, aside / "lsg", plan.positions)
            write_facts(aside, facts)
    return facts


def read_words(data: Path, minilm: Path) -> tuple[Tensor, Tensor]:
    """What the decoder's attention over the source reads at first, fitted on a few texts; see warm_start.py."""
    records = evenly_spaced([record for name in CORPORA for record in read_records(data, name)], FITTED)
    texts = tqdm((record["document"] for record in records), "reading words off MiniLM's output", len(records))
    return embedding_reader(minilm, load_tokenizer(minilm), texts)


def evenly_spaced(records: Sequence[Record], number: int) -> list[Record]:
    """So many of the records, from all over them; all, if there are no more."""
    number = min(number, len(records))
    return [records[len(records) * place // number] for place in range(number)]


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
