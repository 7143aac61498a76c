"""`data0:data1`: a training set in several folders, of which each epoch reads the next."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from conftest import SUMMARIZATION, TINY, TRAINING, write_jsonl
from fairseq_commands import train

from lsg_fairseq.commands.preprocess import main as preprocess_main
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationConfig, LSGSummarizationTask


@pytest.fixture(scope="module")
def second(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second shard of the corpus' training set, of other lengths and for the tail of documents."""
    folder = tmp_path_factory.mktemp("second")
    documents = write_jsonl(folder / "train.jsonl", [33, 44, 55, 200, 66], seed=7)
    flags = ["--train", documents, "--out", folder / "data", "--tokenizer", corpus / "tokenizer", "--workers", 1]
    assert preprocess_main([*map(str, flags), "--keep-part", "tail"]) == 0
    return folder / "data"


def test_each_epoch_reads_the_next_folder(
    corpus: Path, second: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = [*SUMMARIZATION, *TINY, *TRAINING, "--max-epoch", 3, "--save-dir", tmp_path, "--max-source-positions", 128]
    train(f"{corpus}{os.pathsep}{second}", *flags)
    cut = re.findall(r"(\w+): \d+ of (\d+) sources were cut to 126 tokens of text, the (\w+)", caplog.text)
    first_shard, second_shard = ("train", "13", "head"), ("train", "5", "tail")
    # fairseq opens the next epoch's folder before it sees that the last epoch is over.
    assert cut == [("valid", "5", "head"), first_shard, second_shard, first_shard, second_shard]
    state = load_checkpoint_file(str(tmp_path / "checkpoint_last.pt"))
    assert state["extra_state"]["train_iterator"]["epoch"] == 4


def test_every_document_is_read_in_as_many_epochs_as_there_are_folders(corpus: Path, second: Path) -> None:
    cfg = LSGSummarizationConfig(data=f"{corpus}{os.pathsep}{second}")
    cfg.train_subset, cfg.dataset_impl, cfg.required_seq_len_multiple = "train", None, 1
    task = LSGSummarizationTask.setup_task(cfg)
    assert task.has_sharded_data("train")
    sizes = []
    for epoch in (1, 2, 3):
        task.load_dataset("train", epoch=epoch)
        sizes.append(task.datasets["train"].src.sizes.tolist())
    assert sizes[0] == sizes[2] != sizes[1]
    assert (len(sizes[0]), len(sizes[1])) == (13, 5)


def test_shards_of_another_vocabulary_are_refused(corpus: Path, tmp_path: Path) -> None:
    documents = write_jsonl(tmp_path / "train.jsonl", [30, 40], seed=8)
    flags = ["--train", documents, "--out", tmp_path / "data", "--train-tokenizer", 290, "--workers", 1]
    assert preprocess_main([*map(str, flags)]) == 0
    with pytest.raises(LSGError, match=r"the vocabulary of .* differs from that of .*lsg-preprocess --tokenizer"):
        LSGSummarizationTask.setup_task(LSGSummarizationConfig(data=f"{corpus}{os.pathsep}{tmp_path / 'data'}"))
