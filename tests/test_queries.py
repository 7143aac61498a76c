"""Queries in front of documents: the same ids in lsg-preprocess, the task, lsg-summarize and the hub, and never cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_jsonl
from hub_checkpoints import documents_of, lively_copy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from language_models import KINDS, build_over, write_language_tokenizer
from reference_checkpoints import REFERENCE

from lsg_fairseq import hub
from lsg_fairseq.commands.preprocess import main as preprocess_main
from lsg_fairseq.commands.summarize import main as summarize_main
from lsg_fairseq.data.document_files import Example
from lsg_fairseq.data.encoding import Encoder
from lsg_fairseq.data.kept_part import PARTS, keep
from lsg_fairseq.data.split_files import SEPARATOR, queries_file
from lsg_fairseq.data.text_lines import Place
from lsg_fairseq.hub.batches import BatchedGenerator, BatchOptions
from lsg_fairseq.hub.summarizer import LSGHubInterface
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig, LSGSummarizationTask
from lsg_fairseq.tokenizers.load import load_tokenizer
from lsg_fairseq.weights.families import FAMILIES

WORDS = "the cat sat on a mat while it rained and a bird sang in the tree ".split()
RECORDS = [
    {"document": " ".join(WORDS * 9), "meta": {"query": "what did the cat do"}, "summary": "it sat"},
    {"document": "the cat sat", "meta": {"query": " "}, "summary": "it sat"},
    {"document": "a bird sang", "meta": {"query": "who sang\nin the tree?"}, "summary": "a bird"},
]
QUERIES = [record["meta"]["query"].strip() for record in RECORDS]
LIMIT = 48


@pytest.fixture(scope="module")
def trained(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively_copy(checkpoints, tmp_path_factory.mktemp("lively-queries"))


def task_of(folder: Path, **named: Any) -> LSGSummarizationTask:
    named |= {"source_lang": "source", "target_lang": "target", "required_seq_len_multiple": 1}
    named |= {"dataset_impl": "mmap", "train_subset": "train", "max_source_positions": LIMIT}
    return LSGSummarizationTask.setup_task(LSGSummarizationConfig(data=str(folder), **named))


def preprocess(folder: Path, tokenizer: Path, *flags: str, records: list[dict[str, Any]] = RECORDS) -> int:
    folder.mkdir(exist_ok=True)
    (folder / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    paths = ["--train", folder / "in.jsonl", "--tokenizer", tokenizer, "--out", folder / "data", "--workers", "1"]
    return preprocess_main([*map(str, paths), "--query-field", "meta.query", *flags])


def hub_over(data: Path) -> LSGHubInterface:
    """The interface of a model over a data folder's tokenizer; it only reads."""
    return LSGHubInterface(task_of(data), build_over(data / "tokenizer"), load_tokenizer(data / "tokenizer"))


# --- the same ids everywhere ----------------------------------------------------------------------------------------


def test_the_families_that_summarise_have_one_separator() -> None:
    assert {family.name for family in FAMILIES.values() if family.has_decoder and family.doubled_separator} == set()
    assert SEPARATOR == ("</s>",)


@pytest.fixture(scope="module")
def encoders(corpus: Path, trained: Path) -> tuple[Encoder, BatchedGenerator]:
    lsg = hub.lsg_bart_base(trained)
    return Encoder(corpus / "tokenizer"), BatchedGenerator(lsg, lsg.generation_settings)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=30), st.text(min_size=1, max_size=60))
@example("what?", " the cat")
@example("\ud800\n", "x</s>y")
@example("</s>", "a")
def test_preprocess_and_summarize_have_the_same_ids(
    encoders: tuple[Encoder, BatchedGenerator], query: str, document: str
) -> None:
    encoder, generator = encoders
    encoded = encoder.encode_example(Example(Place("f", 1), document, query=query))
    read = generator._encode(document, None, query)
    if encoded.source is None:
        assert len(read) == 0
        return
    assert read.tolist() == [0, *encoded.source.tolist()]
    texts = (query, document) if query.strip() else (document,)
    assert torch.equal(read, generator.hub.encode(*texts))
    assert read[1 : 1 + encoded.query_length].tolist() == (
        generator.hub.encode(query)[1:-1].tolist() if query.strip() else []
    )


def bart(folder: Path) -> tuple[Path, list[str]]:
    from lsg_fairseq.tokenizers.fairseq_bpe import train_tokenizer

    train_tokenizer([record["document"] for record in RECORDS], 300, folder)
    return folder, []


def pegasus(folder: Path) -> tuple[Path, list[str]]:
    return REFERENCE / "models" / "pegasus_n1024_short", []


def language_kind(kind: str) -> Callable[[Path], tuple[Path, list[str]]]:
    def write(folder: Path) -> tuple[Path, list[str]]:
        write_language_tokenizer(kind, folder, src_lang="en_XX", tgt_lang="ro_RO")
        return folder, ["--source-lang-token", "en_XX", "--target-lang-token", "ro_RO"]

    return write


TOKENIZERS = {"bart": bart, "pegasus": pegasus, **{kind: language_kind(kind) for kind in KINDS}}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_family_reads_pairs_of_which_the_query_stays(name: str, tmp_path: Path) -> None:
    if name == "pegasus" and not REFERENCE.is_dir():
        pytest.skip(f"needs the reference checkpoints in {REFERENCE}")
    folder, flags = TOKENIZERS[name](tmp_path / "tokenizer")
    assert preprocess(tmp_path, folder, *flags) == 0
    lsg = hub_over(tmp_path / "data")
    front = lsg.task.sequence_format.num_front
    lengths = [len(lsg.tokenizer.encode(query)) if query else 0 for query in QUERIES]
    assert queries_file(tmp_path / "data", "train").read_text().split() == [str(n) for n in lengths]
    for part in PARTS:
        task = task_of(tmp_path / "data", keep_part=part)
        task.load_dataset("train")
        dataset = task.datasets["train"]
        generator = BatchedGenerator(lsg, lsg_settings(), BatchOptions(keep_part=part))
        batch = dataset.collater([dataset[i] for i in range(len(RECORDS))])
        assert batch["query_length"].tolist() == [lengths[i] for i in batch["id"].tolist()]
        for i, (record, query) in enumerate(zip(RECORDS, QUERIES, strict=True)):
            read = generator._encode(record["document"], None, record["meta"]["query"])
            assert dataset[i]["source"].tolist() == read.tolist()
            assert dataset.size(i)[0] >= len(read)
            whole = lsg.encode(*filter(None, (record["meta"]["query"] if query else "", record["document"])))
            lead = front + (lengths[i] + 1 if lengths[i] else 0)
            behind = len(lsg.ends()[1])
            content = keep(whole[lead:-behind], LIMIT - lead - behind, part)
            assert torch.equal(read, torch.cat([whole[:lead], content, whole[-behind:]]))


def lsg_settings() -> Any:
    from lsg_fairseq.hub.batches import GenerationSettings

    return GenerationSettings(beam=1)


# --- commands -------------------------------------------------------------------------------------------------------


def test_summarize_reads_the_query(corpus: Path, trained: Path, tmp_path: Path) -> None:
    lsg = hub.lsg_bart_base(trained)
    documents = documents_of(corpus)[:4]
    queries = ["the cat", "old river banks", "", "rain fell and birds"]
    expected = lsg.summarize(documents, beam=2, min_len=3, max_len_b=6, query=queries)
    assert expected[2] == lsg.summarize(documents[2], beam=2, min_len=3, max_len_b=6)
    assert expected != lsg.summarize(documents, beam=2, min_len=3, max_len_b=6)
    one = list(lsg.summarize_stream(documents, beam=2, min_len=3, max_len_b=6, query="the cat"))
    assert one == lsg.summarize(documents, beam=2, min_len=3, max_len_b=6, query="the cat")
    records = [{"document": d, "q": {"text": q}} for d, q in zip(documents, queries, strict=True)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    flags = ["--beam", 2, "--min-len", 3, "--max-len-b", 6, "--quiet", "--jsonl", "--query-field", "q.text"]
    command = [tmp_path / "in.jsonl", "--checkpoint", trained, "--output", tmp_path / "out.jsonl", *flags]
    assert summarize_main([*map(str, command)]) == 0
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == [{**record, "summary": summary} for record, summary in zip(records, expected, strict=True)]


def test_report_names_the_field_and_its_lengths(corpus: Path, tmp_path: Path) -> None:
    assert preprocess(tmp_path, corpus / "tokenizer") == 0
    entry = json.loads((tmp_path / "data" / "preprocess.json").read_text())["splits"]["train"]
    assert entry["fields"]["query"] == "meta.query"
    lengths = [int(line) for line in queries_file(tmp_path / "data", "train").read_text().split()]
    assert (entry["query_tokens"]["min"], entry["query_tokens"]["max"]) == (0, max(lengths))
    write_jsonl(tmp_path / "again.jsonl", [5, 6], seed=0)
    assert preprocess_main(["--train", str(tmp_path / "again.jsonl"), "--out", str(tmp_path / "data")]) == 0
    assert not queries_file(tmp_path / "data", "train").exists()


def test_what_is_wrong_is_one_sentence(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preprocess(tmp_path, corpus / "tokenizer", records=[{"document": "a", "summary": "b"}]) == 1
    assert "line 1, has no field 'meta.query'; fields present" in capsys.readouterr().err
    (tmp_path / "in.txt").write_text("a\n")
    assert (
        preprocess_main(["--test", str(tmp_path / "in.txt"), "--out", str(tmp_path / "d"), "--query-field", "q"]) == 1
    )
    assert "--query-field q is a field of records, but --test is a text file" in capsys.readouterr().err
    assert summarize_main([str(tmp_path / "in.txt"), "--checkpoint", str(trained), "--query-field", "q"]) == 1
    assert "--query-field is a field of records" in capsys.readouterr().err
    long = {"document": "a mat", "meta": {"query": "what did the cat do " * 30}, "summary": "b"}
    assert preprocess(tmp_path, corpus / "tokenizer", records=[RECORDS[2], long]) == 0
    with pytest.raises(
        LSGError, match=r"train: document 2 has a query of \d+ tokens, but the model reads only 46 tokens of text"
    ):
        task_of(tmp_path / "data").load_dataset("train")
    lsg = hub.lsg_bart_base(trained, max_source_positions=LIMIT)
    with pytest.raises(
        LSGError, match=r"a query of \d+ tokens leaves no room for its document in the 48 that are read"
    ):
        lsg.summarize("a mat", query=long["meta"]["query"])
    with pytest.raises(LSGError, match="there are 2 queries for 1 texts: pass one for each"):
        lsg.summarize(["a mat"], query=["a", "b"])
    for damage in ("7\n", "7\nx\n", "7\n-1\n"):
        queries_file(tmp_path / "data", "train").write_text(damage)
        with pytest.raises(
            LSGError, match=r"train.source-target.queries must have one number of tokens in each of 2 lines"
        ):
            task_of(tmp_path / "data").load_dataset("train")
