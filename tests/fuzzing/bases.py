"""Sound inputs of every kind, made once: what the cases are mutated copies of."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hub_checkpoints import lively_copy, write_roberta_of_2019
from reference_checkpoints import REFERENCE

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, load_tokenizer

DATA = Path(__file__).resolve().parents[1] / "data"
MODELS = REFERENCE / "models"
# Hugging Face folders by the hub entry that reads them.
ENTRY_OF = {
    "hf": "lsg_bart_base",
    "bart_short": "lsg_bart_base",
    "bart_lsg": "lsg_bart_large",
    "shards": "lsg_bart_base",
    "pickle": "lsg_bart_base",
    "pickle_shards": "lsg_bart_base",
    "led": "lsg_bart_base",
    "pegasus_short": "lsg_pegasus_large",
    "pegasus_lsg": "lsg_pegasus_large",
    "mbart25": "lsg_barthez",
    "barthez": "lsg_barthez",
    "bert": "lsg_bert_base",
    "distilbert": "lsg_distilbert_base",
    "roberta": "lsg_roberta_base",
    "xlm-roberta": "lsg_xlm_roberta_base",
    "camembert": "lsg_camembert_base",
    "converted": "lsg_bart_base",
    "converted_pegasus": "lsg_pegasus_large",
    "converted_mbart": "lsg_barthez",
    "converted_bert": "lsg_bert_base",
    "trained": "lsg_bart_base",
    "encoder": "lsg_roberta_base",
    "roberta_2019": "lsg_roberta_base",
}
ENCODERS = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert")


@dataclass(frozen=True)
class Bases:
    """`folder` holds a folder for each name of ENTRY_OF, and `data` (fairseq's files), `hf_cache` (what torch.hub keeps
    of a converted checkpoint), `output` (a half-written output and its journal); `documents` is JSON Lines.
    """

    folder: Path
    documents: Path

    def __getattr__(self, name: str) -> Path:
        return self.folder / name

    @property
    def names(self) -> list[str]:
        return [name for name in ENTRY_OF if (self.folder / name).is_dir()]


def make_bases(corpus: Path, checkpoints: Path, pretrained: Path, folder: Path) -> Bases:
    """Make them all; what needs transformers is made in a child, so that no case carries its memory."""
    documents = Path(shutil.copy(corpus.parent / "valid.jsonl", folder))
    shutil.copytree(corpus, folder / "data")
    trained = lively_copy(checkpoints, folder / "trained")
    convert_checkpoint(trained / "checkpoint_best.pt", folder / "converted", tokenizer=corpus / "tokenizer")
    shutil.copy(checkpoints / "checkpoint_last.pt", trained)
    export_checkpoint(folder / "converted", folder / "hf")
    for name, model in (("bart_short", "bart_n1024_short"), ("pegasus_short", "pegasus_n1024_short")):
        _copy(MODELS / model, folder / name)
    for model in ("bart_lsg", "pegasus_lsg"):
        _copy(MODELS / model, folder / model)
    for model in ("mbart25", "barthez"):
        _copy(DATA / "mbart_reference" / model, folder / model)
    _write_shards(folder)
    (folder / "encoder").mkdir()
    shutil.copy(pretrained / "checkpoint_best.pt", folder / "encoder")
    shutil.copytree(corpus / "tokenizer", folder / "encoder" / "tokenizer")
    _write_roberta(corpus, folder / "roberta_2019")
    _in_a_child(lambda: _write_encoders(folder))
    for name, source in (("pegasus", "pegasus_short"), ("mbart", "mbart25"), ("bert", "bert")):
        convert_checkpoint(folder / source, folder / f"converted_{name}")
    return Bases(folder, documents)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    target.chmod(0o755)


def _write_shards(folder: Path) -> None:
    """The exported folder with its weights in two files each of both formats, and in one pickle."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "hf" / "model.safetensors")
    names = sorted(weights)
    halves = [names[: len(names) // 2], names[len(names) // 2 :]]
    for name in ("shards", "pickle", "pickle_shards"):
        shutil.copytree(folder / "hf", folder / name)
        (folder / name / "model.safetensors").unlink()
    torch.save(weights, folder / "pickle" / "pytorch_model.bin")
    for out, stem, suffix in (("shards", "model", "safetensors"), ("pickle_shards", "pytorch_model", "bin")):
        files = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
        for file, half in zip(files, halves, strict=True):
            part = {name: weights[name].clone() for name in half}
            path = folder / out / file
            save_file(part, path, {"format": "pt"}) if suffix == "safetensors" else torch.save(part, path)
        index = {"metadata": {}, "weight_map": {n: f for f, half in zip(files, halves, strict=True) for n in half}}
        (folder / out / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


def _write_roberta(corpus: Path, folder: Path) -> None:
    folder.mkdir()
    shutil.copytree(corpus / "tokenizer", folder / "tokenizer")
    dictionary = build_dictionary(load_tokenizer(corpus / "tokenizer"))
    dictionary.save(str(folder / "dict.txt"))
    write_roberta_of_2019(dictionary, folder / "model.pt")


def _write_encoders(folder: Path) -> None:
    from encoder_models import build_hf_model, write_hf_folder
    from test_led import write_led

    heads = {"bert": "BertForMaskedLM", "distilbert": "DistilBertForMaskedLM", "roberta": "RobertaForMaskedLM"}
    heads |= {"xlm-roberta": "XLMRobertaForSequenceClassification", "camembert": "CamembertForMaskedLM"}
    for model_type, architecture in heads.items():
        write_hf_folder(build_hf_model(model_type, architecture), folder / model_type)
    write_led(folder / "led")


def _in_a_child(work: Callable[[], None]) -> None:
    if (child := os.fork()) == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
