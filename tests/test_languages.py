"""Language codes: what surrounds a text in mBART's and in mBART-50's order, in data, task, generation and hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from language_models import KINDS, build_over, write_language_tokenizer

from lsg_fairseq.commands.preprocess import main as preprocess_main
from lsg_fairseq.hub.batches import BatchedGenerator, GenerationSettings
from lsg_fairseq.hub.summarizer import LSGHubInterface
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig, LSGSummarizationTask
from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, embedding_rows, load_tokenizer
from lsg_fairseq.tokenizers.languages import CODES_25, CODES_50
from lsg_fairseq.tokenizers.sequence_format import SEQUENCE_FORMAT_FILE, SequenceFormat

PAIRS = [("the cat sat on the mat", "a cat"), ("a mat", "the cat sat"), ("a cat sat on the cat", "sat on a mat")]
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module", params=KINDS)
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """lsg-preprocess's folder of PAIRS, from English to Romanian, and transformers' tokenizer of the same languages."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = write_language_tokenizer(request.param, folder / "tokenizer", src_lang="en_XX", tgt_lang="ro_RO")
    (folder / "pairs.jsonl").write_text("".join(json.dumps({"document": d, "summary": s}) + "\n" for d, s in PAIRS))
    flags = ["--source-lang-token", "en_XX", "--target-lang-token", "ro_RO", "--workers", "1"]
    inputs = ["--train", folder / "pairs.jsonl", "--tokenizer", folder / "tokenizer", "--out", folder / "data"]
    assert preprocess_main([*map(str, inputs), *flags]) == 0
    return request.param, folder / "data", theirs


def task_of(folder: Path, **settings: Any) -> LSGSummarizationTask:
    named = {"source_lang": "source", "target_lang": "target", "num_batch_buckets": 0, "required_seq_len_multiple": 1}
    named |= {"dataset_impl": "mmap", "truncate_source": False, "train_subset": "train"}
    return LSGSummarizationTask.setup_task(LSGSummarizationConfig(data=str(folder), **named, **settings))


def hub_of(folder: Path) -> LSGHubInterface:
    task = task_of(folder)
    return LSGHubInterface(task, build_over(folder / "tokenizer"), load_tokenizer(folder / "tokenizer"))


def test_a_batch_is_what_transformers_makes(data: tuple[str, Path, Any]) -> None:
    """Sources, targets and the decoder's input."""
    kind, folder, theirs = data
    task = task_of(folder)
    task.model_positions = (64, 64)
    task.load_dataset("train")
    dataset = task.datasets["train"]
    sample = dataset.collater([dataset[i] for i in range(len(PAIRS))])
    assert all(d["source"].numel() <= n for d, (n, _) in zip(dataset, dataset.sizes, strict=True))
    rows = embedding_rows(load_tokenizer(folder / "tokenizer"), task.source_dictionary)
    for row, place in enumerate(sample["id"].tolist()):
        expected = theirs(PAIRS[place][0], text_target=PAIRS[place][1])
        for found, ids in (
            (sample["net_input"]["src_tokens"], expected["input_ids"]),
            (sample["target"], expected["labels"]),
        ):
            assert found[row][found[row] != 1].tolist() == rows[torch.tensor(ids)].tolist()
        labels = rows[torch.tensor(expected["labels"])].tolist()
        start = labels[-1] if KINDS[kind][0] == "behind" else 2
        previous = sample["net_input"]["prev_output_tokens"][row]
        assert previous[: len(labels)].tolist() == [start, *labels[:-1]]


def test_cut_sequences_keep_their_ends(data: tuple[str, Path, Any]) -> None:
    _, folder, _ = data
    whole, cut = task_of(folder), task_of(folder, max_source_positions=5)
    for task in (whole, cut):
        task.model_positions = (64, 64)
        task.load_dataset("train")
    long, short = (task.datasets["train"][0]["source"].tolist() for task in (whole, cut))
    assert len(short) == 5
    front, behind = ([] if part == ["</s>"] else part for part in whole.sequence_format.ends("source"))
    assert short[: len(front)] == long[: len(front)]
    assert short[-len(behind or [2]) :] == long[-len(behind or [2]) :]


def test_generation_begins_in_the_language_asked_for(data: tuple[str, Path, Any]) -> None:
    kind, folder, _ = data
    hub = hub_of(folder)
    dictionary = hub.task.target_dictionary
    for asked, expected in ((None, "[ro_RO]"), ("fr_XX", "[fr_XX]"), ("[fr_XX]", "[fr_XX]")):
        batches = BatchedGenerator(hub, GenerationSettings(beam=2, max_len_b=6), languages=(None, asked))
        tokens = batches._generate([hub.encode("the cat")])[0][0]["tokens"]
        if KINDS[kind][0] == "front":
            assert dictionary[tokens[0]] == expected
            assert batches.generator.decoder_start_token == 2
        else:
            assert batches.generator.decoder_start_token == dictionary.index(expected)


def test_the_hub_speaks_languages(data: tuple[str, Path, Any]) -> None:
    _, folder, theirs = data
    hub = hub_of(folder)
    rows = embedding_rows(hub.tokenizer, hub.task.source_dictionary)
    for code in ("en_XX", "fi_FI"):
        theirs.src_lang = code
        assert hub.encode("a cat", source_lang=code).tolist() == rows[torch.tensor(theirs("a cat").input_ids)].tolist()
    theirs.src_lang = "en_XX"
    assert torch.equal(hub.encode("a cat"), hub.encode("a cat", source_lang="en_XX"))
    assert hub.decode(hub.encode("a cat sat")) == "a cat sat"
    asked = hub.summarize("the cat sat on the mat", beam=2, min_len=4, max_len_b=8, target_lang="ro_RO")
    assert asked == hub.summarize("the cat sat on the mat", beam=2, min_len=4, max_len_b=8)
    assert not any(code in asked for code in CODES_50)
    assert hub.fill_mask("the <mask> sat", topk=2, source_lang="fi_FI")
    assert hub.extract_features(hub.encode("a cat")).shape[1] == len(hub.encode("a cat"))
    with pytest.raises(LSGError, match=r"'xx_YY' is not a language of this model.*ar_AR"):
        hub.encode("a cat", source_lang="xx_YY")


def test_a_long_text_keeps_its_language(data: tuple[str, Path, Any]) -> None:
    """What summarize cuts off is text."""
    _, folder, _ = data
    hub = hub_of(folder)
    hub.task.model_positions = (8, 64)
    batches = BatchedGenerator(hub, GenerationSettings(max_len_b=4), languages=("fi_FI", None))
    tokens = batches._encode("the cat sat on the mat " * 3, "fi_FI")
    front, behind = hub.ends("fi_FI")
    assert len(tokens) == 8
    assert torch.equal(tokens[: len(front)], front)
    assert torch.equal(tokens[-len(behind) :], behind)


def test_flags_and_file_names_settle_the_language(data: tuple[str, Path, Any]) -> None:
    """--source-lang-token first; --source-lang where it is a code, as in translation_from_pretrained_bart."""
    _, folder, _ = data
    assert task_of(folder).sequence_format.source_language == "en_XX"
    assert task_of(folder, source_lang_token="fr_XX").sequence_format.source_language == "fr_XX"
    cfg = LSGSummarizationConfig(data=str(folder), source_lang="cs_CZ", target_lang="fi_FI")
    dictionary = build_dictionary(load_tokenizer(folder / "tokenizer"))
    settled = LSGSummarizationTask(cfg, dictionary, dictionary).sequence_format
    assert (settled.source_language, settled.target_language) == ("cs_CZ", "fi_FI")
    with pytest.raises(LSGError, match="'xx_YY' is not a language"):
        task_of(folder, target_lang_token="xx_YY")


def test_a_language_has_to_be_settled() -> None:
    for place in ("front", "behind"):
        unsettled = SequenceFormat(False, False, "</s>", place)
        with pytest.raises(LSGError, match=r"the sources' is not settled.*--source-lang-token en_XX"):
            unsettled.ends("source")
        with pytest.raises(LSGError, match="the targets' is not settled"):
            unsettled.start() if place == "behind" else unsettled.forced_first()
    with pytest.raises(LSGError, match="no language codes, so en_XX cannot be set"):
        SequenceFormat().speaking("en_XX")


@kinds
def test_codes_tell_the_order_where_no_class_is_named(kind: str, tmp_path: Path) -> None:
    write_language_tokenizer(kind, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in settings.items() if k not in ("tokenizer_class", "src_lang")})
    )
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.sequence_format == SequenceFormat(False, False, "</s>", KINDS[kind][0])
    assert len(tokenizer.languages) == len(CODES_25 if kind == "MBartTokenizer" else CODES_50)


def test_formats_go_through_their_file(tmp_path: Path) -> None:
    spoken = SequenceFormat(False, False, "</s>", "front", "en_XX", "fi_FI")
    spoken.save(tmp_path)
    assert SequenceFormat.load(tmp_path) == spoken
    # A folder from before there were language codes.
    before = {"source_bos": False, "target_bos": False, "decoder_start": "<s>"}
    (tmp_path / SEQUENCE_FORMAT_FILE).write_text(json.dumps(before))
    assert SequenceFormat.load(tmp_path) == SequenceFormat(False, False, "<s>")
    (tmp_path / SEQUENCE_FORMAT_FILE).write_text(json.dumps({**before, "languages": "middle"}))
    with pytest.raises(LSGError, match='must state languages as "front", "behind" or ""'):
        SequenceFormat.load(tmp_path)


def test_a_tokenizer_without_codes_is_refused_a_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"document": "a", "summary": "b"}) + "\n")
    flags = ["--train", tmp_path / "pairs.jsonl", "--train-tokenizer", "300", "--out", tmp_path / "out"]
    assert preprocess_main([*map(str, flags), "--source-lang-token", "en_XX", "--workers", "1"]) == 1
    assert (
        "'en_XX' (the command line) is not a language of this tokenizer, which has no language codes"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


LANGUAGES = ["en_XX", "ro_RO", "fi_FI"]


@pytest.fixture(scope="module")
def mixed(data: tuple[str, Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PAIRS, each in a language of its own, and an empty document between them."""
    out = tmp_path_factory.mktemp("mixed")
    write_language_tokenizer(data[0], out / "tokenizer")
    records = [{"document": d, "summary": s, "lang": code} for (d, s), code in zip(PAIRS, LANGUAGES, strict=True)]
    records.insert(1, {"document": " ", "summary": "x", "lang": "de_DE"})
    (out / "pairs.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    flags = ["--train", out / "pairs.jsonl", "--tokenizer", out / "tokenizer", "--out", out / "data", "--workers", "1"]
    assert preprocess_main([*map(str, flags), "--lang-field", "lang"]) == 0
    return out


def test_each_example_has_its_language(data: tuple[str, Path, Any], mixed: Path) -> None:
    """Sources, targets and decoder inputs are transformers' in that language; the empty document is left out."""
    kind, _, theirs = data
    task = task_of(mixed / "data")
    task.model_positions = (64, 64)
    task.load_dataset("train")
    sample = task.datasets["train"].collater([task.datasets["train"][i] for i in (2, 0, 1)])
    rows = embedding_rows(load_tokenizer(mixed / "tokenizer"), task.source_dictionary)
    for row, place in enumerate(sample["id"].tolist()):
        theirs.src_lang = theirs.tgt_lang = LANGUAGES[place]
        expected = theirs(PAIRS[place][0], text_target=PAIRS[place][1])
        source, target, previous = (
            part[row][part[row] != 1].tolist()
            for part in (
                sample["net_input"]["src_tokens"],
                sample["target"],
                sample["net_input"]["prev_output_tokens"],
            )
        )
        assert source == rows[torch.tensor(expected["input_ids"])].tolist()
        assert target == rows[torch.tensor(expected["labels"])].tolist()
        assert previous == [target[-1] if KINDS[kind][0] == "behind" else 2, *target[:-1]]
    theirs.src_lang, theirs.tgt_lang = "en_XX", "ro_RO"
    report = json.loads((mixed / "data" / "preprocess.json").read_text())["splits"]["train"]
    assert report["languages"] == dict.fromkeys(LANGUAGES, 1)


def test_a_batch_of_languages_is_generated_as_each_alone(mixed: Path) -> None:
    hub = hub_of(mixed / "data")
    assert not hub.task.sequence_format.target_language
    texts, settings = [document for document, _ in PAIRS], GenerationSettings(beam=3, min_len=3, max_len_b=7)
    together = BatchedGenerator(hub, settings)
    sources = [hub.encode(text, source_lang=code) for text, code in zip(texts, LANGUAGES, strict=True)]
    found = together._generate(sources, LANGUAGES)
    for source, code, best in zip(sources, LANGUAGES, found, strict=True):
        alone = BatchedGenerator(hub, settings, languages=(code, code))._generate([source])[0]
        assert [h["tokens"].tolist() for h in best] == [h["tokens"].tolist() for h in alone]
    ((places, summaries),) = together.run_window(texts, languages=LANGUAGES)
    assert sorted(places) == [0, 1, 2]
    expected = [hub.decode_summary(best[0]["tokens"]) for best in found]
    assert summaries == [expected[place] for place in places]
    with pytest.raises(LSGError, match="the language of the outputs is not settled"):
        together._generate(sources)


@pytest.mark.parametrize(
    ("record", "flags", "wanted"),
    [
        ({"lang": "xx_YY"}, [], "'xx_YY' (%s, line 1) is not a language of this tokenizer, which has ar_AR"),
        ({}, [], "line 1, has no field 'lang'; fields present: 'document', 'summary'"),
        ({"lang": 3}, [], "field 'lang' must be a string, not int"),
        ({"lang": "en_XX"}, ["--target-lang-token", "yy_XX"], "'yy_XX' (the command line) is not a language"),
    ],
)
def test_wrong_languages_are_named(
    record: dict[str, Any], flags: list[str], wanted: str, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mixed / "wrong.jsonl"
    path.write_text(json.dumps({"document": "a cat", "summary": "a", **record}) + "\n")
    command = ["--train", path, "--tokenizer", mixed / "tokenizer", "--out", mixed / "wrong", "--lang-field", "lang"]
    assert preprocess_main([*map(str, command), *flags]) == 1
    assert wanted.replace("%s", str(path)) in capsys.readouterr().err
    assert not (mixed / "wrong").exists()


def test_a_damaged_file_of_languages_is_refused(mixed: Path, tmp_path: Path) -> None:
    shutil.copytree(mixed / "data", tmp_path / "data")
    (tmp_path / "data" / "train.source-target.languages").write_text("en_XX en_XX\n")
    task = task_of(tmp_path / "data")
    task.model_positions = (64, 64)
    with pytest.raises(LSGError, match=r"two language codes in each of 3 lines.*has 1 lines"):
        task.load_dataset("train")
