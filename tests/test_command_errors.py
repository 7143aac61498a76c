"""fairseq's own commands with this task: whatever a user gets wrong is one sentence, and the status 1."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import PLUGIN, SUMMARIZATION, TINY, TRAINING, run
from fairseq import options, search, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.nan_detector import NanDetector
from fairseq_commands import generate, interact, train, validate
from torch.multiprocessing import ProcessRaisedException

from lsg_fairseq.compat import commands
from lsg_fairseq.compat.commands import (
    errors_come_with_traceback,
    print_user_errors_in_one_line,
    sentence_of,
    unforeseen,
)
from lsg_fairseq.modules.lsg_config import LSGError
from recipes.tiny_models import build_dictionary, build_model, random_tokens

CPU = ["--cpu", "--num-workers", "0"]
ONE_UPDATE = [*TINY, *TRAINING, "--max-update", "1"]


def sentence(command: Callable[..., None], *flags: object) -> str:
    """What the command's user is told."""
    with pytest.raises(Exception) as raised:  # noqa: PT011
        command(*flags)
    told = sentence_of(raised.value)
    assert told is not None, f"a page of traceback: {raised.value!r}"
    assert "\n" not in told
    return told


@pytest.fixture(scope="module")
def documents(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents without summaries, with characters that end lines."""
    folder = tmp_path_factory.mktemp("documents")
    texts = ["the cat\rsat on\u2028a mat", "rain\x0bfell and\x85birds sang", "old\r\n\r\nriver banks " * 20]
    (folder / "test.jsonl").write_text("".join(json.dumps({"document": text}) + "\n" for text in texts))
    run(sys.executable, PLUGIN.parent / "scripts/preprocess.py", "--test", folder / "test.jsonl", "--out",
        folder / "data", "--tokenizer", corpus / "tokenizer", "--workers", 1)  # fmt: skip
    return folder / "data"


# --- what is missing ---------------------------------------------------------------------------------------------


def test_no_batch_size(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    flags = [flag for flag in ONE_UPDATE if flag not in ("--batch-size", "4")]
    assert "--max-tokens or --batch-size" in sentence(train, corpus, *SUMMARIZATION, *flags, "--save-dir", tmp_path)
    best = checkpoints / "checkpoint_best.pt"
    assert "--max-tokens or --batch-size" in sentence(validate, corpus, *SUMMARIZATION, *CPU, "--path", best)


def test_data_folder_is_missing_or_empty(corpus: Path, tmp_path: Path) -> None:
    save = ["--save-dir", tmp_path / "saved"]
    missing = tmp_path / "missing"
    assert f"the data folder {missing} does not exist" in sentence(train, missing, *SUMMARIZATION, *ONE_UPDATE, *save)
    assert f"{missing} does not exist" in sentence(generate, missing, *SUMMARIZATION, "--path", "x.pt")
    assert f"{missing} does not exist" in sentence(train, f"{corpus}:{missing}", *SUMMARIZATION, *ONE_UPDATE, *save)
    (tmp_path / "empty").mkdir()
    assert "is not a data folder" in sentence(train, tmp_path / "empty", *SUMMARIZATION, *ONE_UPDATE, *save)


@pytest.mark.parametrize("command", [generate, validate, interact])
def test_path_is_missing(corpus: Path, command: Callable[..., None]) -> None:
    flags = [corpus, *SUMMARIZATION, *CPU, "--batch-size", 1]
    assert "--path" in sentence(command, *flags)
    assert "no-file.pt" in sentence(command, *flags, "--path", "no-file.pt")


def test_a_file_to_restore_from_is_missing(corpus: Path, tmp_path: Path) -> None:
    """fairseq would begin a training of its own instead."""
    flags = [*ONE_UPDATE, "--save-dir", tmp_path / "saved", "--restore-file", tmp_path / "no-file.pt"]
    assert "no-file.pt is no file: name a checkpoint" in sentence(train, corpus, *SUMMARIZATION, *flags)


def test_encoders_are_no_models_of_the_task(corpus: Path, tmp_path: Path) -> None:
    flags = ["--arch", "lsg_roberta_small", *TRAINING, "--max-update", "1", "--save-dir", tmp_path]
    assert "LSGRobertaModel is no encoder-decoder" in sentence(train, corpus, *SUMMARIZATION, *flags)


def test_save_dir_cannot_be_written(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = sentence(train, corpus, *SUMMARIZATION, *ONE_UPDATE, "--save-dir", tmp_path / "file")
    assert told.startswith(f"--save-dir {tmp_path / 'file'} cannot be written (Not a directory)")


def test_splits_that_are_not_there(corpus: Path, checkpoints: Path, documents: Path, tmp_path: Path) -> None:
    told = sentence(train, corpus, *SUMMARIZATION, *ONE_UPDATE, "--save-dir", tmp_path, "--valid-subset", "val")
    assert "there is no val split" in told
    assert "which has train and valid and test; choose one of these" in told
    assert "lsg-preprocess --val" not in told
    path = ["--path", checkpoints / "checkpoint_best.pt", *CPU]
    told = sentence(generate, corpus, *SUMMARIZATION, *path, "--gen-subset", "valid,test")
    assert told == "valid,test names 2 splits, but only one can be read: --gen-subset valid"
    told = sentence(generate, documents, *SUMMARIZATION, *path, "--gen-subset", "valid")
    assert "which has test; choose one of these" in told
    assert told.endswith("or make it: lsg-preprocess --valid FILE")


# --- documents alone ---------------------------------------------------------------------------------------------


def test_summaries_are_needed(documents: Path, checkpoints: Path) -> None:
    flags = [documents, *SUMMARIZATION, "--path", checkpoints / "checkpoint_best.pt", *CPU, "--batch-size", 2]
    for flag in (["--prefix-size", 2], ["--score-reference"]):
        assert sentence(generate, *flags, *flag).startswith(
            f"{flag[0]} needs summaries, but the documents of test have"
        )
    assert "have no summaries" in sentence(validate, *flags, "--valid-subset", "test")


def test_constraints_are_for_interactive(corpus: Path, documents: Path, checkpoints: Path) -> None:
    flags = [*SUMMARIZATION, "--path", checkpoints / "checkpoint_best.pt", *CPU, "--batch-size", 2, "--constraints"]
    for folder in (corpus, documents):
        assert "--constraints works only in fairseq-interactive" in sentence(generate, folder, *flags)


def test_documents_are_printed_a_line_each(
    documents: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(documents, *SUMMARIZATION, "--path", checkpoints / "checkpoint_best.pt", *CPU, "--beam", 1, "--max-len-b",
             3, "--print-alignment", "--num-batch-buckets", 2)  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    sources = dict(line.split("\t") for line in lines if line.startswith("S-"))
    assert sources["S-0"] == "the cat <n> sat on <n> a mat"
    assert sources["S-1"] == "rain <n> fell and <n> birds sang"
    assert sources["S-2"].count(" <n> ") == 20
    # Every line is one that the command prints: nothing was torn apart.
    assert {line[:2] for line in lines if line.strip()} <= {"S-", "H-", "D-", "P-", "A-"} | {
        line[:2] for line in lines[-1:]
    }


def test_interactive_prints_hard_alignments(
    corpus: Path, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "documents").write_text("the cat sat\nrain fell\n")
    flags = [corpus, *SUMMARIZATION, "--path", checkpoints / "checkpoint_best.pt", *CPU, "--beam", 1, "--max-len-b", 3]
    flags += ["--input", tmp_path / "documents", "--print-alignment"]
    interact(*flags)
    alignments = [line for line in capsys.readouterr().out.splitlines() if line.startswith("A-")]
    assert len(alignments) == 2
    assert re.fullmatch(r"A-0\t\d+-0( \d+-\d+)*", alignments[0])
    monkeypatch.setattr(sys, "argv", ["fairseq-interactive"])
    assert "fairseq-interactive prints only hard alignments" in sentence(interact, *flags, "soft")


# --- sizes -------------------------------------------------------------------------------------------------------


def test_documents_above_max_tokens(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    flags = [*SUMMARIZATION, *ONE_UPDATE, "--max-tokens", 2000, "--max-tokens-valid", 100, "--save-dir", tmp_path]
    assert "a batch may have 100: use --max-tokens" in sentence(train, corpus, *flags)
    path = ["--path", checkpoints / "checkpoint_best.pt", *CPU]
    assert "a batch may have 50: use --max-tokens" in sentence(
        generate, corpus, *SUMMARIZATION, *path, "--max-tokens", 50
    )


def test_buckets_pad_formatted_sequences(corpus: Path) -> None:
    """Padding belongs behind the end of a sequence."""

    def items(buckets: int) -> list[torch.Tensor]:
        flags = [str(corpus), *SUMMARIZATION, "--truncate-source", "--num-batch-buckets", str(buckets)]
        args = options.parse_args_and_arch(options.get_generation_parser(), input_args=flags)
        task = tasks.setup_task(convert_namespace_to_omegaconf(args).task)
        task.load_dataset("valid")
        assert (task.cfg.num_batch_buckets, task.cfg.truncate_source) == (buckets, True)
        return [task.datasets["valid"][i]["source"] for i in range(5)]

    plain, bucketed = items(0), items(2)
    assert len({len(item) for item in bucketed}) == 2
    for one, other in zip(plain, bucketed, strict=True):
        assert torch.equal(one, other[: len(one)])
        assert other[len(one) :].eq(1).all()


# --- divergence --------------------------------------------------------------------------------------------------


def test_divergence_is_said(corpus: Path, tmp_path: Path) -> None:
    flags = [*SUMMARIZATION, *TINY, *TRAINING, "--lr", "1e30", "--max-epoch", 3, "--save-dir", tmp_path]
    told = sentence(train, corpus, *flags)
    assert "training diverged at update" in told
    assert "lower --lr" in told
    assert (tmp_path / "crash.pt").is_file()


def test_first_nan_is_looked_for_behind_every_module() -> None:
    model, source = build_model().train(), random_tokens(20)
    with NanDetector(model):
        model(source, None, random_tokens(5, seed=1))[0].sum().backward()


# --- the sentence ------------------------------------------------------------------------------------------------


def raised_by(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        call()
    return raised.value


def test_other_errors_are_nobodys_sentence() -> None:
    """What fairseq did not say itself: errors of Python, torch and other packages, in its code or not."""
    somebody_elses = [ValueError("of somebody else"), AssertionError("of somebody else"), KeyError("k"), None]
    somebody_elses += [raised_by(lambda: search.DiverseBeamSearch(build_dictionary(), 2, 0.5).step(0, None, None))]
    assert [sentence_of(error) for error in somebody_elses] == [None] * len(somebody_elses)


def test_what_nobody_foresaw_says_where_it_was() -> None:
    error = raised_by(lambda: search.DiverseBeamSearch(build_dictionary(), 2, 0.5).step(0, None, None))
    told = unforeseen(error)
    assert re.search(r"\(AttributeError: .*; in .*test_command_errors\.py:\d+ \S+, search\.py:\d+ step\)", told)
    assert "\n" not in told


def test_what_another_process_did_not_foresee_is_its_last_line() -> None:
    page = "Traceback (most recent call last):\n  File \"/a/train.py\", line 7, in main\n    f()\nKeyError: 'x'\n"
    told = unforeseen(ProcessRaisedException(f"\n\n-- Process 1 terminated with:\n{page}", 1, 2))
    assert "(KeyError: 'x'; in " in told
    assert "train.py:7 main)" in told


@pytest.mark.parametrize(
    ("error", "said"), [(KeyError("x"), "error: something unexpected"), (KeyboardInterrupt(), "interrupted")]
)
def test_fairseqs_commands_print_no_page(
    error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = []
    monkeypatch.setattr(sys, "argv", ["fairseq-train"])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(commands, "leave", left.append)
    assert errors_come_with_traceback()
    print_user_errors_in_one_line()
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err.startswith(f"fairseq-train: {said}")
    assert left == ([1] if isinstance(error, Exception) else [])
    monkeypatch.setenv("LSG_TRACEBACK", "1")
    sys.excepthook(type(error), error, None)
    assert type(error).__name__ in capsys.readouterr().err


def test_what_fairseq_says_is_told() -> None:
    strategy = search.DiverseBeamSearch(build_dictionary(), num_groups=2, diversity_strength=0.5)
    error = raised_by(lambda: strategy.step(0, torch.zeros(1, 3, 64), torch.zeros(1, 3, 0)))
    told = "DiverseBeamSearch requires --beam to be divisible by the number of groups (LSG_TRACEBACK=1 shows where)"
    assert sentence_of(error) == told


def test_sentences_of_files_name_them(tmp_path: Path) -> None:
    assert sentence_of(FileNotFoundError(2, "No such file or directory", "a.pt")) == "a.pt: No such file or directory"
    assert sentence_of(OSError("Model file not found: a.pt")) == "Model file not found: a.pt"


def test_what_hides_an_error_does_not_hide_its_sentence() -> None:
    hiding = RuntimeError("hidden")
    hiding.__cause__ = ValueError("also hidden")
    hiding.__cause__.__context__ = LSGError("the reason\nin two lines")
    assert sentence_of(hiding) == "the reason in two lines"


def test_an_error_in_generation_ends_with_status_1(
    corpus: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader's threads are still at work then, and an interpreter that ends normally aborts on them."""
    monkeypatch.setenv("LSG_TEST_FRESH", "1")
    flags = [
        "--path",
        checkpoints / "checkpoint_best.pt",
        "--cpu",
        "--batch-size",
        1,
        "--min-len",
        50,
        "--max-len-b",
        20,
    ]
    printed = run("fairseq-generate", corpus, *SUMMARIZATION, *flags, check=False)
    assert printed.startswith("1\n")
    assert "fairseq-generate: error: outputs must have at least 50 tokens and at most 20" in printed
    assert "Traceback" not in printed
    assert "terminate called" not in printed
