"""--keep-part: which tokens of a long document are read, the same in the task, in lsg-summarize and in torch.hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import SUMMARIZATION, TINY, TRAINING
from fairseq.data import indexed_dataset
from fairseq_commands import train
from hub_checkpoints import documents_of, lively_copy
from hypothesis import given
from hypothesis import strategies as st

from lsg_fairseq import hub
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.commands.preprocess import main as preprocess_main
from lsg_fairseq.commands.summarize import main as summarize_main
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.data.kept_part import PARTS, KeptPart, keep
from lsg_fairseq.hub.batches import BatchedGenerator, BatchOptions
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig, LSGSummarizationTask

SHORT = {"beam": 1, "min_len": 3, "max_len_b": 6, "progress": False}
LIMIT = 64


@pytest.fixture(scope="module")
def trained(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively_copy(checkpoints, tmp_path_factory.mktemp("lively-parts"))


def task_of(data: Path, part: str | None = None) -> LSGSummarizationTask:
    cfg = LSGSummarizationConfig(data=str(data), keep_part=part, max_source_positions=LIMIT)
    cfg.train_subset, cfg.dataset_impl, cfg.required_seq_len_multiple = "train", None, 1
    return LSGSummarizationTask.setup_task(cfg)


def sources(task: LSGSummarizationTask, split: str = "test") -> list[torch.Tensor]:
    task.load_dataset(split)
    return [task.datasets[split].src[i] for i in range(len(task.datasets[split]))]


# --- what is kept ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 60), st.integers(0, 30), st.sampled_from(PARTS))
def test_what_is_kept_is_as_much_as_fits_in_order(length: int, room: int, part: str) -> None:
    tokens = torch.arange(length)
    kept = keep(tokens, room, part)
    assert len(kept) == min(length, room)
    assert (kept.diff() > 0).all()
    if len(kept):
        before, behind = int(kept[0]), length - 1 - int(kept[-1])
        jumps = [] if len(kept) < 2 else (kept.diff() - 1).nonzero().flatten().tolist()
        if part == "head" or length <= room:
            assert (before, jumps) == (0, [])
        elif part == "tail":
            assert (behind, jumps) == (0, [])
        elif part == "middle":
            assert abs(before - behind) <= 1
            assert jumps == []
        else:
            assert before == 0
            assert room < 2 or (behind == 0 and jumps == [room - room // 2 - 1])


@pytest.mark.parametrize("part", PARTS)
def test_task_and_hub_read_the_same_ids(part: str, corpus: Path, trained: Path) -> None:
    lsg = hub.lsg_bart_base(trained, max_source_positions=LIMIT)
    generator = BatchedGenerator(lsg, lsg.generation_settings, BatchOptions(keep_part=part))
    texts = documents_of(corpus)
    read = [generator._encode(text) for text in texts]
    for ids, of_task, text in zip(read, sources(task_of(corpus, part)), texts, strict=True):
        assert ids.tolist() == of_task.tolist()
        whole = lsg.encode(text)
        assert ids.tolist() == [0, *keep(whole[1:-1], LIMIT - 2, part).tolist(), 2]
        assert torch.equal(generator._cut(whole), ids)
    assert generator.num_cut == 2 * sum(len(lsg.encode(text)) > LIMIT for text in texts)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("word", ["the cat sat ", "thecatsat", " " * 40 + "the"])
def test_of_a_very_long_document_no_more_is_tokenised_than_needed(
    word: str, part: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lsg = hub.lsg_bart_base(trained, max_source_positions=64)
    text, longest = word * 5000 + "end", []
    encode = type(lsg).encode
    generator = BatchedGenerator(lsg, lsg.generation_settings, BatchOptions(keep_part=part))
    whole = generator._cut(lsg.encode(text))
    monkeypatch.setattr(type(lsg), "encode", lambda self, piece: longest.append(len(piece)) or encode(self, piece))
    read = generator._encode(text)
    if part == "middle":  # found by characters
        assert len(read) == len(whole)
        assert set(read.tolist()) == set(whole.tolist())
    else:
        assert torch.equal(read, whole)
    assert max(longest) <= 64 * 32 * 4
    with pytest.warns(UserWarning, match=rf"that are read, the {part} \(the longest has about"):
        generator.report_cut()


# --- who chooses ----------------------------------------------------------------------------------------------------


def test_the_user_comes_first_then_data_then_checkpoint() -> None:
    assert KeptPart("tail", "ends").of("middle") == "tail"
    assert KeptPart(None, "ends").of("middle") == "middle"
    assert KeptPart(None, "ends").of() == "ends"
    assert KeptPart().of() == "head"
    assert KeptPart().with_checkpoint("tail").with_checkpoint(None).of() == "tail"
    assert KeptPart("ends").with_checkpoint("tail").with_checkpoint("head").of() == "ends"
    with pytest.raises(LSGError, match=r"read different parts of documents \(tail, head\): give --keep-part"):
        KeptPart().with_checkpoint("tail").with_checkpoint("head")
    for wrong in (("start", None), (None, 3)):
        with pytest.raises(LSGError, match="keep_part must be head, tail, ends or middle, not"):
            KeptPart(*wrong)


def test_preprocess_says_what_is_kept_and_the_task_keeps_it(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--test", corpus.parent / "test.jsonl", "--out", tmp_path / "data", "--tokenizer", corpus / "tokenizer"]
    assert preprocess_main([*map(str, flags), "--keep-part", "tail", "--workers", "1"]) == 0
    assert "none was cut; the task keeps the tail of longer ones\n" in capsys.readouterr().out
    entry = json.loads((tmp_path / "data" / "preprocess.json").read_text())["splits"]["test"]
    assert entry["keep_part"] == "tail"
    assert entry["tokens_beyond"]["1024"] == 0
    asked = sources(task_of(corpus, "tail"))
    assert [ids.tolist() for ids in sources(task_of(tmp_path / "data"))] == [ids.tolist() for ids in asked]
    ours = sources(task_of(tmp_path / "data", "ends"))
    assert [ids.tolist() for ids in ours] == [ids.tolist() for ids in sources(task_of(corpus, "ends"))]


def test_a_training_is_remembered(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoint says so to every command that reads it, a conversion's too."""
    short = ["--max-source-positions", 64, "--keep-part", "tail", "--max-epoch", 1, "--save-dir", tmp_path / "save"]
    train(corpus, *SUMMARIZATION, *TINY, *TRAINING, *short)
    assert "were cut to 62 tokens of text, the tail (the longest has" in caplog.text
    path = tmp_path / "save" / "checkpoint_last.pt"
    assert load_checkpoint_file(str(path))["task_state"]["keep_part"] == "tail"
    task = task_of(corpus)
    task.load_state_dict(load_checkpoint_file(str(path))["task_state"])
    assert [ids.tolist() for ids in sources(task)] == [ids.tolist() for ids in sources(task_of(corpus, "tail"))]
    convert_checkpoint(path, tmp_path / "converted", 128, tokenizer=corpus / "tokenizer")
    for folder in (tmp_path / "save", tmp_path / "converted"):
        lsg = hub.lsg_bart_base(folder, max_source_positions=LIMIT)
        assert BatchedGenerator(lsg, lsg.generation_settings).part == "tail"
    state = load_checkpoint_file(str(path))
    state["task_state"]["keep_part"] = "all"
    torch.save(state, tmp_path / "save" / "checkpoint_best.pt")
    with pytest.raises(LSGError, match="the checkpoint's keep_part must be head, tail, ends or middle, not 'all'"):
        hub.lsg_bart_base(tmp_path / "save")


def test_summarize_keeps_what_is_asked_for_and_an_output_its_part(
    corpus: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lsg = hub.lsg_bart_base(trained, max_source_positions=LIMIT)
    text = documents_of(corpus)[5]
    tail = lsg.decode(keep(lsg.encode(text)[1:-1], LIMIT - 2, "tail"))
    with pytest.warns(UserWarning, match="that are read, the tail"):
        summary = lsg.summarize(text, **SHORT, keep_part="tail")
    assert summary == lsg.summarize(tail, **SHORT)
    (tmp_path / "in.txt").write_text(text)
    flags = ["--beam", 1, "--min-len", 3, "--max-len-b", 6, "--quiet", "--max-source-positions", LIMIT]
    command = [tmp_path / "in.txt", "--checkpoint", trained, "--output", tmp_path / "out.txt", *flags]
    assert summarize_main([*map(str, command), "--keep-part", "tail"]) == 0
    assert (tmp_path / "out.txt").read_text().split() == summary.split()
    assert summarize_main([*map(str, command), "--keep-part", "ends"]) == 1
    assert "was begun with a different keep_part ('tail', not 'ends'): use --overwrite" in capsys.readouterr().err
    with pytest.raises(LSGError, match="keep_part must be head, tail, ends or middle, not 'left'"):
        lsg.summarize(text, keep_part="left")


@pytest.mark.parametrize("part", PARTS)
def test_alignments_name_the_tokens_that_they_named(part: str, corpus: Path, tmp_path: Path) -> None:
    """--load-alignments counts the texts' own tokens; `<s>` is in front of them, and some are cut."""
    for path in corpus.iterdir():
        (tmp_path / path.name).symlink_to(path)
    plain = task_of(corpus, "head")
    plain.cfg.max_source_positions = 1024
    plain.load_dataset("test")
    pairs, builder = [], indexed_dataset.make_builder(str(tmp_path / "test.align.source-target.bin"), "mmap", 10**6)
    for i in range(len(plain.datasets["test"])):
        lengths = [len(side[i]) - 2 for side in (plain.datasets["test"].src, plain.datasets["test"].tgt)]
        pairs.append([(7 * n % lengths[0], n % lengths[1]) for n in range(20)])
        builder.add_item(torch.tensor(pairs[-1]).flatten())
    builder.finalize(str(tmp_path / "test.align.source-target.idx"))
    task = task_of(tmp_path, part)
    task.cfg.load_alignments = True
    task.load_dataset("test")
    for i, original in enumerate(pairs):
        given, whole = task.datasets["test"][i], plain.datasets["test"][i]
        moved = given["alignment"].view(-1, 2).tolist()
        named = [(int(given["source"][s]), int(given["target"][t])) for s, t in moved]
        positions = keep(torch.arange(len(whole["source"]) - 2), LIMIT - 2, part).tolist()
        still = [(s, t) for s, t in original if s in positions]
        assert named == [(int(whole["source"][s + 1]), int(whole["target"][t + 1])) for s, t in still]
        assert moved == [[positions.index(s) + 1, t + 1] for s, t in still]
