"""Stock fairseq's commands, run as a user runs them, and what they print and write checked."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import BLOCK, PLUGIN, SUMMARIZATION, TINY, TRAINING, run, write_jsonl

from lsg_fairseq.compat.loading import load_checkpoint_file

GENERATION = "--cpu --beam 3 --max-len-b 12 --batch-size 4".split()


def output_ids(printed: str) -> list[int]:
    return sorted(int(line.split("\t")[0][2:]) for line in printed.splitlines() if line.startswith("D-"))


def output_texts(printed: str) -> dict[int, str]:
    rows = (line.split("\t") for line in printed.splitlines() if line.startswith("D-"))
    return {int(name[2:]): text for name, _, text in rows}


def model_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint_file(checkpoint)["model"]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = model_state(one), model_state(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_resumed_training_equals_uninterrupted(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    shutil.copy(checkpoints / "checkpoint1.pt", tmp_path / "checkpoint_last.pt")
    printed = run("fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, "--max-epoch", 2, "--save-dir", tmp_path)
    assert "epoch 2" in printed
    assert "begin training epoch 1\n" not in printed
    assert_same_weights(tmp_path / "checkpoint_last.pt", checkpoints / "checkpoint2.pt")
    assert not torch.equal(
        model_state(checkpoints / "checkpoint1.pt")["encoder.global_embeddings.weight"],
        model_state(checkpoints / "checkpoint2.pt")["encoder.global_embeddings.weight"],
    )


def test_rouge_in_validation_changes_no_weight(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    rouge = ["--eval-rouge", "--eval-rouge-args", '{"beam": 4, "max_len_b": 10}']
    rouge += ["--best-checkpoint-metric", "rougeLsum", "--maximize-best-checkpoint-metric"]
    printed = run(
        "fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, "--max-epoch", 2, "--save-dir", tmp_path, *rouge
    )
    assert re.search(r"\| rouge1 [\d.]+ \| rouge2 [\d.]+ \| rougeL [\d.]+ \| rougeLsum [\d.]+", printed)
    assert "best_rougeLsum" in printed
    assert_same_weights(tmp_path / "checkpoint_last.pt", checkpoints / "checkpoint2.pt")


def test_validate(corpus: Path, checkpoints: Path) -> None:
    path = checkpoints / "checkpoint_best.pt"
    printed = run("fairseq-validate", corpus, *SUMMARIZATION, "--path", path, "--cpu", "--batch-size", 2)
    assert re.search(r"valid on 'valid' subset \| loss [\d.]+", printed)


def test_generate_scores_each_document_once(corpus: Path, checkpoints: Path) -> None:
    path = checkpoints / "checkpoint_best.pt"
    printed = run("fairseq-generate", corpus, *SUMMARIZATION, "--path", path, *GENERATION, "--scoring", "rouge")
    assert output_ids(printed) == list(range(11))
    scores = re.search(r"ROUGE-1 ([\d.]+), ROUGE-2 ([\d.]+), ROUGE-L ([\d.]+), ROUGE-Lsum ([\d.]+)", printed)
    assert scores
    references = [line.split("\t")[1] for line in printed.splitlines() if line.startswith("T-")]
    documents = [json.loads(line) for line in (corpus.parent / "test.jsonl").read_text().splitlines()]
    assert sorted(references) == sorted(document["summary"] for document in documents)


@pytest.mark.parametrize("lengths", [[30, 90, 200], [40] * 8, [20] * 9 + [900]], ids=["3", "8", "one_long"])
def test_no_document_is_lost(checkpoints: Path, corpus: Path, tmp_path: Path, lengths: list[int]) -> None:
    test = write_jsonl(tmp_path / "test.jsonl", lengths, seed=3, summaries=False)
    run(sys.executable, PLUGIN.parent / "scripts/preprocess.py", "--test", test, "--out", tmp_path / "data",
        "--tokenizer", corpus / "tokenizer", "--workers", 1)  # fmt: skip
    path = checkpoints / "checkpoint_best.pt"
    # No batch size here: fairseq's own defaults drop documents.
    flags = ["--path", path, "--cpu", "--beam", 2, "--max-len-b", 5]
    printed = run("fairseq-generate", tmp_path / "data", *SUMMARIZATION, *flags)
    assert output_ids(printed) == list(range(len(lengths)))
    cut = re.search(r"test: (\d+) of \d+ sources were cut to [\d,]+ tokens", printed)
    assert bool(cut) == (max(lengths) > 500)


def test_interactive_equals_generate(corpus: Path, checkpoints: Path) -> None:
    path = checkpoints / "checkpoint_best.pt"
    generated = output_texts(run("fairseq-generate", corpus, *SUMMARIZATION, "--path", path, *GENERATION))
    documents = [json.loads(line)["document"] for line in (corpus.parent / "test.jsonl").read_text().splitlines()]
    printed = run("fairseq-interactive", corpus, *SUMMARIZATION, "--path", path, *GENERATION, "--buffer-size", 4,
                  stdin="\n".join([*documents, "a cat\rand a mat"]) + "\n")  # fmt: skip
    texts = output_texts(printed)
    assert set(texts) == {*generated, len(documents)}, "a lone carriage return ends no document"
    assert {number: texts[number] for number in generated} == generated


def test_model_overrides_change_attention(corpus: Path, checkpoints: Path) -> None:
    flags = ["--path", checkpoints / "checkpoint_best.pt", *GENERATION]
    printed = run("fairseq-generate", corpus, *SUMMARIZATION, *flags, "--model-overrides", "{'lsg_sparsity_factor': 3}",
                  check=False)  # fmt: skip
    assert printed.startswith("1\n")
    assert "fairseq-generate: error: sparsity_factor must divide block_size (16), which 3 does not" in printed
    assert "Traceback" not in printed
    printed = run("fairseq-generate", corpus, *SUMMARIZATION, *flags, "--model-overrides", "{'lsg_blok_size': 3}",
                  check=False)  # fmt: skip
    assert "there is no LSG setting 'blok_size'" in printed


def test_plain_line_with_stock_task_from_foreign_folder(corpus: Path, tmp_path: Path) -> None:
    """The default task, no position flags, --user-dir by its bare name."""
    flags = [flag for flag in TINY if flag not in ("--max-source-positions", "1024")]
    printed = run("fairseq-train", corpus, "--user-dir", "lsg_fairseq", *flags, *TRAINING, "--save-dir", tmp_path,
                  cwd=tmp_path)  # fmt: skip
    assert "fairseq.tasks.translation" in printed
    saved = load_checkpoint_file(tmp_path / "checkpoint_last.pt")
    assert saved["cfg"]["model"].max_source_positions == 4096
    assert saved["model"]["encoder.embed_positions.weight"].size(0) == 4096 + 2


def test_hydra_train_keeps_lsg_settings(corpus: Path, tmp_path: Path) -> None:
    config = {
        "common": {"user_dir": str(PLUGIN), "cpu": True},
        "task": {"_name": "lsg_summarization", "data": str(corpus), "max_source_positions": 1024},
        "model": {"_name": "lsg_bart_small", "encoder_embed_dim": 32, "decoder_embed_dim": 32, "lsg_block_size": 64},
        "dataset": {"batch_size": 4, "num_workers": 0},
        "criterion": {"_name": "cross_entropy"},
        "optimizer": {"_name": "adam"},
        "lr_scheduler": {"_name": "fixed"},
        "optimization": {"max_epoch": 1, "lr": [0.001]},
        "checkpoint": {"save_dir": str(tmp_path / "saved")},
    }
    (tmp_path / "lsg.yaml").write_text("# @package _group_\n" + json.dumps(config))
    printed = run("fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "lsg",
                  "+model.lsg_sparse_block_size=32", cwd=tmp_path)  # fmt: skip
    assert "block_size=64, sparse_block_size=32" in printed + "".join(p.read_text() for p in tmp_path.rglob("*.log"))
    path = tmp_path / "saved" / "checkpoint_last.pt"
    printed = run("fairseq-generate", corpus, *SUMMARIZATION, "--path", path, *GENERATION)
    assert output_ids(printed) == list(range(11))
    assert load_checkpoint_file(path)["cfg"]["model"]["lsg_block_size"] == 64


@pytest.mark.parametrize(
    "flags",
    ["--fp16", "--bf16", "--amp", "--memory-efficient-fp16", "--checkpoint-activations",
     "--encoder-layerdrop 0.3 --attention-dropout 0.1"],
)  # fmt: skip
def test_training_flags(corpus: Path, tmp_path: Path, flags: str) -> None:
    printed = run("fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, *flags.split(), "--save-dir", tmp_path)
    assert re.search(r"\| train \| epoch 001 \| loss \d", printed)
    assert (tmp_path / "checkpoint_last.pt").exists()


def test_denoising_pretraining(corpus: Path, tmp_path: Path) -> None:
    """fairseq's own denoising task on documents of many blocks, with the corpus' own dictionary."""
    symbols = run(sys.executable, "-c", TO_SYMBOLS, corpus)
    for split in ("train", "valid"):
        (tmp_path / split).write_text(symbols)
    run("fairseq-preprocess", "--only-source", "--srcdict", corpus / "dict.txt", "--trainpref", tmp_path / "train",
        "--validpref", tmp_path / "valid", "--destdir", tmp_path / "data", "--workers", 1)  # fmt: skip
    denoising = "--task denoising --tokens-per-sample 512 --mask 0.3 --mask-length span-poisson --replace-length 1"
    denoising += " --poisson-lambda 3.5 --permute-sentences 0 --rotate 0 --insert 0 --mask-random 0.1 --bpe gpt2"
    denoising = denoising.removesuffix(" --bpe gpt2")
    printed = run("fairseq-train", tmp_path / "data", "--user-dir", PLUGIN, *TINY, *TRAINING, *denoising.split(),
                  "--save-dir", tmp_path / "saved")  # fmt: skip
    assert re.search(r"\| train \| epoch 001 \| loss \d", printed)


TO_SYMBOLS = """
import json, logging, sys
from pathlib import Path
from lsg_fairseq.tokenizers.fairseq_bpe import LSGBPE
data = Path(sys.argv[1])
bpe = LSGBPE.from_folder(data / "tokenizer")
for line in (data.parent / "train.jsonl").read_text().splitlines():
    print(bpe.encode(json.loads(line)["document"]))
"""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lsg-block-size", "10", "--lsg-sparsity-factor", "4"], "sparsity_factor must divide block_size (10)"),
        (["--lsg-sparsity-type", "nrom"], "sparsity_type 'nrom' is not registered; choose from block_stride"),
        (["--lsg-num-global-tokens", "0"], "num_global_tokens must be 1 to 512, not 0"),
        (["--lsg-adaptive", "yes"], "'yes' is neither true nor false"),
        (["--lsg-attention", "flash"], "attention 'flash' is not registered; choose from full, lsg"),
        (["--max-tokens", "100"], "exceed the limit"),
        (["--eval-rouge", "--eval-rouge-args", "{beam: 2}"], "--eval-rouge-args is not JSON"),
    ],
)
def test_wrong_settings_are_one_sentence(corpus: Path, tmp_path: Path, flags: list[str], message: str) -> None:
    folder = tmp_path / "saved"
    printed = run("fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, "--save-dir", folder, *flags, check=False)
    assert not printed.startswith("0\n")
    assert message in printed
    assert "Traceback" not in printed
    assert not list(folder.glob("*.pt"))


def test_cut_checkpoint_is_one_sentence(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    whole = (checkpoints / "checkpoint_best.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    printed = run("fairseq-generate", corpus, *SUMMARIZATION, "--path", tmp_path / "half.pt", *GENERATION, check=False)
    assert printed.startswith("1\n")
    assert "half.pt is damaged or cut short" in printed
    assert "Traceback" not in printed


def test_missing_split_is_one_sentence(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    data, valid = tmp_path / "data", write_jsonl(tmp_path / "valid.jsonl", [30, 40], seed=4)
    run("lsg-preprocess", "--valid", valid, "--out", data, "--tokenizer", corpus / "tokenizer", "--workers", 1)
    flags = ["--path", checkpoints / "checkpoint_best.pt", *GENERATION]
    printed = run("fairseq-generate", data, *SUMMARIZATION, *flags, check=False)
    assert "there is no test split" in printed
    assert "Traceback" not in printed


def test_seventh_selection_from_another_user_dir(corpus: Path, tmp_path: Path) -> None:
    """A plugin of a plugin: register, train by name, reload for generation; without it, the names that exist."""
    plugin = tmp_path / "my_selection"
    plugin.mkdir()
    (plugin / "__init__.py").write_text(SELECTION)
    task = ["--user-dir", plugin, "--task", "lsg_summarization"]
    run("fairseq-train", corpus, *task, *TINY, *TRAINING, "--lsg-sparsity-type", "every_other", "--save-dir", tmp_path)
    flags = ["--path", tmp_path / "checkpoint_last.pt", *GENERATION]
    assert output_ids(run("fairseq-generate", corpus, *task, *flags)) == list(range(11))
    printed = run("fairseq-generate", corpus, *SUMMARIZATION, *flags, check=False)
    assert "sparsity_type 'every_other' is not registered; choose from block_stride, bos_pooling" in printed


SELECTION = """
import lsg_fairseq
from lsg_fairseq.modules.registry import register_sparse_selection
from lsg_fairseq.modules.sparse_tokens import SparseTokens


@register_sparse_selection("every_other")
def select_every_other(query, key, value, key_padding_mask, config, generator):
    step = config.sparsity_factor
    mask = None
    if key_padding_mask is not None:
        mask = key_padding_mask[:, None, ::step].expand(-1, key.size(1), -1)
    return SparseTokens(key[:, :, ::step], value[:, :, ::step], mask)
"""

assert BLOCK * 4 < 330, "the corpus has documents longer than four blocks"
