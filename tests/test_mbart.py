"""LSG-mBART in fairseq: its multilingual tasks, its own model.pt, and summaries in the language asked for."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PLUGIN, TRAINING
from fairseq.data import Dictionary, indexed_dataset
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq_commands import generate, train

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.loading import open_checkpoint
from lsg_fairseq.commands.preprocess import main as preprocess_main
from lsg_fairseq.commands.summarize import main as summarize_main
from lsg_fairseq.hub.entries import from_checkpoint
from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, load_tokenizer
from lsg_fairseq.tokenizers.languages import CODES_25
from recipes.tiny_models import TINY_SIZES

FOLDER = Path(__file__).parent / "data" / "mbart_reference"
LANGS = ",".join(CODES_25)
DOCUMENTS = ["the cat sat on a mat", "old river banks under grey skies", "birds sang in trees", "rain fell on the mat"]
SIZES = [f"--{name.replace('_', '-')}={value}" for name, value in TINY_SIZES.items()]
MODEL = ["--user-dir", PLUGIN, "--arch", "lsg_mbart_base", *SIZES, "--max-source-positions", 64]
MODEL += ["--max-target-positions", 64, "--lsg-block-size", 8, "--lsg-sparse-block-size", 8]


def write_indexed(prefix: Path, dictionary: Dictionary, texts: list[str]) -> None:
    """fairseq-preprocess's files of texts of the mBART tokenizer."""
    tokenizer = load_tokenizer(FOLDER / "mbart25")
    builder = indexed_dataset.make_builder(f"{prefix}.bin", "mmap", len(dictionary))
    for text in texts:
        rows = [dictionary.index(token) for token in tokenizer.encode(text)]
        builder.add_item(torch.tensor([*rows, dictionary.eos()], dtype=torch.int32))
    builder.finalize(f"{prefix}.idx")


def fairseq_dictionary() -> Dictionary:
    """mBART's dict.txt: pieces alone; fairseq's tasks add the languages and `<mask>`."""
    dictionary = build_dictionary(load_tokenizer(FOLDER / "mbart25"))
    pieces = Dictionary()
    for symbol in dictionary.symbols[4 : -len(CODES_25) - 1]:
        pieces.add_symbol(symbol)
    return pieces


def test_translation_from_pretrained_bart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """fairseq's task trains the arch from its own model and generates; the hub knows the languages of the training."""
    stock = write_stock(tmp_path / "stock")["model"].state_dict()
    dictionary = fairseq_dictionary()
    data, save = tmp_path / "data", tmp_path / "save"
    data.mkdir()
    for language in ("en_XX", "ro_RO"):
        dictionary.save(str(data / f"dict.{language}.txt"))
        for split in ("train", "valid", "test"):
            write_indexed(data / f"{split}.en_XX-ro_RO.{language}", dictionary, DOCUMENTS)
    shutil.copytree(
        FOLDER / "mbart25", data / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors", "config.json")
    )
    task = ["--task", "translation_from_pretrained_bart", "--langs", LANGS, "-s", "en_XX", "-t", "ro_RO"]
    start = ["--finetune-from-model", tmp_path / "stock" / "model.pt"]
    train(data, *MODEL, *task, *TRAINING, *start, "--save-dir", save, "--max-update", 1)
    weights = open_checkpoint(save / "checkpoint_last.pt")["model"]
    for key in ("encoder.layers.1.fc1.weight", "decoder.layer_norm.bias", "encoder.embed_tokens.weight"):
        # One step of Adam moves a weight by no more than the learning rate.
        assert (weights[key] - stock[key]).abs().max() <= 1.01e-3
    assert len(weights["encoder.embed_tokens.weight"]) == len(build_dictionary(load_tokenizer(FOLDER / "mbart25")))
    path = ["--path", save / "checkpoint_last.pt", "--user-dir", PLUGIN, "--cpu", "--batch-size", 2, "--max-len-b", 5]
    generate(data, *task, *path, "--gen-subset", "test")
    assert capsys.readouterr().out.count("\nH-") == len(DOCUMENTS)
    hub = from_checkpoint(save)
    spoken = hub.task.sequence_format
    assert (spoken.source_language, spoken.target_language) == ("en_XX", "ro_RO")
    assert isinstance(hub.summarize(DOCUMENTS[0], beam=2, max_len_b=5), str)


def test_multilingual_denoising(tmp_path: Path) -> None:
    """Pretraining goes on from one language's texts and another's."""
    dictionary = fairseq_dictionary()
    dictionary.save(str(tmp_path / "dict.txt"))
    for language in ("en_XX", "ro_RO"):
        (tmp_path / language).mkdir()
        for split in ("train", "valid"):
            write_indexed(tmp_path / language / split, dictionary, DOCUMENTS)
    task = ["--task", "multilingual_denoising", "--langs", "en_XX,ro_RO", "--add-lang-token", "--mask", 0.3]
    task += ["--tokens-per-sample", 32, "--mask-length", "subword", "--replace-length", 1]
    train(tmp_path, *MODEL, *task, *TRAINING, "--save-dir", tmp_path / "save", "--max-update", 1)
    weights = open_checkpoint(tmp_path / "save" / "checkpoint_last.pt")["model"]
    assert len(weights["encoder.embed_tokens.weight"]) == len(dictionary) + 3


def write_stock(folder: Path) -> dict[str, Any]:
    """fairseq's own mbart_base as its multilingual tasks save it: model.pt and a dict.txt of pieces alone."""
    full = build_dictionary(load_tokenizer(FOLDER / "mbart25"))
    flags = {**TINY_SIZES, "encoder_normalize_before": True, "decoder_normalize_before": True}
    args = Namespace(arch="mbart_base", **flags, layernorm_embedding=True, max_source_positions=32)
    args.max_target_positions = 32
    ARCH_CONFIG_REGISTRY["mbart_base"](args)
    torch.manual_seed(0)
    task = Namespace(source_dictionary=full, target_dictionary=full)
    model = ARCH_MODEL_REGISTRY["mbart_base"].build_model(args, task)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    args.task, args.langs = "translation_from_pretrained_bart", LANGS
    args.source_lang, args.target_lang = "en_XX", "ro_RO"
    args.lsg_config = None
    stored = {name: value for name, value in vars(args).items() if name != "lsg_config"}
    folder.mkdir()
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}
    extra = {"train_iterator": {"epoch": 1}}
    state = {"args": Namespace(**stored), "model": model.state_dict(), "optimizer_history": [history]}
    torch.save({**state, "extra_state": extra, "last_optimizer_state": None}, folder / "model.pt")
    fairseq_dictionary().save(str(folder / "dict.txt"))
    return {"model": model.eval(), "dictionary": full}


@torch.no_grad()
@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_fairseqs_own_model(with_tokenizer: bool, tmp_path: Path) -> None:
    """Converted from model.pt with its dict.txt: every weight bit for bit, and its logits with full attention."""
    stock = write_stock(tmp_path / "stock")
    tokenizer = FOLDER / "mbart25" if with_tokenizer else None
    convert_checkpoint(tmp_path / "stock" / "model.pt", tmp_path / "out", 64, 64, tokenizer=tokenizer)
    weights = open_checkpoint(tmp_path / "out" / "model.pt")["model"]
    before = stock["model"].state_dict()
    for key, tensor in before.items():
        if "embed_positions" not in key and not key.endswith("version"):
            assert torch.equal(weights[key], tensor), key
        elif "embed_positions" in key:
            assert torch.equal(weights[key][: len(tensor)], tensor)
    assert Dictionary.load(str(tmp_path / "out" / "dict.txt")).symbols == stock["dictionary"].symbols
    if with_tokenizer:
        stored = json.loads((tmp_path / "out" / "sequence_format.json").read_text())
        assert (stored["languages"], stored["source_language"], stored["target_language"]) == (
            "behind",
            "en_XX",
            "ro_RO",
        )


def test_training_and_commands_speak_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """lsg-preprocess --lang-field, fairseq-train, fairseq-generate and lsg-summarize, one after the other."""
    records = [
        {"document": text, "summary": text[:8], "lang": code, "id": i}
        for i, (text, code) in enumerate(zip(DOCUMENTS, ("fr_XX", "en_XX", "sl_SI", "fr_XX"), strict=True))
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = tmp_path / "data"
    inputs = [f"--{split}={path}" for split in ("train", "valid", "test")]
    tokenizer = ["--tokenizer", str(FOLDER / "mbart50"), "--lang-field", "lang", "--workers", "1"]
    assert preprocess_main([*inputs, *tokenizer, "--out", str(data)]) == 0
    summarization = ["--task", "lsg_summarization", "--eval-rouge", "--eval-rouge-args", '{"beam": 2, "max_len_b": 4}']
    train(data, *MODEL, *summarization, *TRAINING, "--save-dir", tmp_path / "save", "--max-update", 1)
    capsys.readouterr()
    path_flags = ["--path", tmp_path / "save" / "checkpoint_last.pt", "--user-dir", PLUGIN, "--cpu"]
    generate(data, "--task", "lsg_summarization", *path_flags, "--batch-size", 4, "--max-len-b", 5, "--beam", 2)
    lines = capsys.readouterr().out.splitlines()
    first = {line.split("\t")[0]: line.split("\t")[2].split()[0] for line in lines if line.startswith("H-")}
    assert first == {"H-0": "[fr_XX]", "H-1": "[en_XX]", "H-2": "[sl_SI]", "H-3": "[fr_XX]"}
    command = [str(path), "--checkpoint", str(tmp_path / "save"), "--jsonl", "--lang-field", "lang", "--device", "cpu"]
    assert summarize_main([*command, "--quiet", "--max-len-b", "5", "--beam", "2"]) == 0
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["id"] for record in written] == [0, 1, 2, 3]
    assert all("generated_summary" in record for record in written)


def test_summaries_from_a_hugging_face_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint's own languages hold until others are named; one that it has not is named in a sentence."""
    (tmp_path / "text.txt").write_text(DOCUMENTS[0])
    command = [str(tmp_path / "text.txt"), "--checkpoint", str(FOLDER / "mbart50"), "--device", "cpu", "--quiet"]
    command += ["--min-len", "3", "--max-len-b", "8"]
    printed = []
    for languages in ([], ["--source-lang-token", "fr_XX", "--target-lang-token", "sl_SI"]):
        assert summarize_main([*command, *languages]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert summarize_main([*command, "--target-lang-token", "sl"]) == 1
    assert "'sl' is not a language of this model, whose dictionary has ar_AR" in capsys.readouterr().err
    assert summarize_main([*command, "--source-lang-token", "xx_YY"]) == 1
    assert "'xx_YY' is not a language of this model" in capsys.readouterr().err
