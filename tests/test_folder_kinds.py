"""Folders that people have and that hold no checkpoint as they are: what they are, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from encoder_models import build_hf_model, rewrite_tensors, write_hf_folder
from reference_checkpoints import differing
from safetensors.torch import load_file

from lsg_fairseq.checkpoints.find import find
from lsg_fairseq.huggingface.download import Revision, download_checkpoint
from lsg_fairseq.huggingface.read_folder import read_hf_folder, unwrapped_names
from lsg_fairseq.modules.lsg_config import LSGError


@pytest.mark.parametrize("pattern", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "inner"])
def test_names_of_wrapped_models(pattern: str, tmp_path: Path) -> None:
    """nn.DataParallel(model), torch.compile(model), both, and a compiled part of a model."""
    folder = write_hf_folder(build_hf_model("bert", "BertForMaskedLM"), tmp_path / "hf")
    tensors = load_file(folder / "model.safetensors")
    if pattern == "inner":
        wrapped = {name.replace("bert.encoder.", "bert.encoder._orig_mod."): value for name, value in tensors.items()}
    else:
        wrapped = {pattern.format(name): value for name, value in tensors.items()}
    rewrite_tensors(folder, wrapped)
    assert differing(dict(read_hf_folder(folder).tensors), tensors) == []


def test_two_tensors_of_one_name() -> None:
    with pytest.raises(LSGError, match=r"tensors module\.a and a are one and the same"):
        unwrapped_names(["module.a", "a"])


def write_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "facebook/bart-large"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")


def write_sentence_transformer(folder: Path) -> None:
    write_hf_folder(build_hf_model("bert", "BertModel"), folder / "0_Transformer")
    (folder / "modules.json").write_text("[]")


FOREIGN = [
    (write_adapter, "is a PEFT adapter .*merge it into its base first"),
    (write_sentence_transformer, "is a sentence-transformers model, whose transformer is in its folder 0_Transformer"),
]


@pytest.mark.parametrize(("write", "words"), FOREIGN)
def test_foreign_folders_are_named(write, words: str, tmp_path: Path) -> None:
    write(tmp_path)
    for open_it in (find, read_hf_folder):
        with pytest.raises(LSGError, match=words):
            open_it(tmp_path)
    # What a repository of the hub is, its list of files says.
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    with pytest.raises(LSGError, match=f"a/b {words}"):
        download_checkpoint(Revision("a/b", None, "0" * 40, frozenset(names)))


def test_an_adapter_beside_the_bases_configuration(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart"}))
    with pytest.raises(LSGError, match="is a PEFT adapter"):
        read_hf_folder(tmp_path)


def test_an_adapter_beside_a_whole_model_is_passed_over(tmp_path: Path) -> None:
    folder = write_hf_folder(build_hf_model("bert", "BertModel"), tmp_path / "hf")
    write_adapter(folder)
    assert torch.is_tensor(read_hf_folder(folder).tensors["embeddings.LayerNorm.weight"])


@pytest.mark.parametrize(
    ("architectures", "words"),
    [
        (["BertForMaskedLM"], r'\(BertForMaskedLM\) are those of \'bert\': add "model_type": "bert" to it'),
        (["LSGXLMRobertaModel"], 'add "model_type": "xlm-roberta"'),
        (["BartForConditionalGeneration"], 'add "model_type": "bart"'),
        (["BertGenerationEncoder"], 'add "model_type" to it, one of bart, '),
        (None, 'add "model_type" to it, one of bart, '),
        (7, 'add "model_type" to it, one of bart, '),
    ],
)
def test_config_without_a_model_type(architectures: object, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures, "hidden_size": 8}))
    with pytest.raises(LSGError, match=f"states no model_type, the kind of the weights: .*{words}"):
        read_hf_folder(tmp_path)
