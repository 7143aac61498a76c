"""Pairs of texts and names of classes: what checkpoints of natural language inference are for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from encoder_models import build_hf_model, transformers, write_hf_folder
from fairseq.models.bart.hub_interface import BARTHubInterface
from fairseq.models.roberta.hub_interface import RobertaHubInterface
from reference_checkpoints import REFERENCE

import lsg_fairseq.hub as hub
from lsg_fairseq.huggingface.config_fields import label_names
from lsg_fairseq.tokenizers.fairseq_bpe import symbol_from_token, token_from_symbol

NAMES = {"0": "contradiction", "1": "neutral", "2": "entailment"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))


def fairseqs_encode(kind: type, lsg: hub.LSGHubInterface, texts: tuple[str, ...], **settings: bool) -> list[int]:
    """encode of fairseq's own interface, with the tokenizer and dictionary of ours."""
    bpe = SimpleNamespace(encode=lambda text: " ".join(map(symbol_from_token, lsg.tokenizer.encode(text))))
    task = SimpleNamespace(source_dictionary=lsg.task.source_dictionary)
    stock = SimpleNamespace(bpe=bpe, task=task, max_positions=(1024, 1024))
    return kind.encode(stock, *texts, **settings).tolist()


def fairseqs_decode(kind: type, lsg: hub.LSGHubInterface, tokens: torch.Tensor) -> str | list[str]:
    """decode of the same."""
    bpe = SimpleNamespace(decode=lambda text: lsg.tokenizer.decode(map(token_from_symbol, text.split())))
    return kind.decode(
        SimpleNamespace(bpe=bpe, task=SimpleNamespace(source_dictionary=lsg.task.source_dictionary)), tokens
    )


def save_model(kind: str, folder: Path) -> torch.nn.Module:
    """A tiny classifier of three classes with names."""
    if kind != "bart":
        theirs = build_hf_model(
            kind, {"roberta": "Roberta", "bert": "Bert"}[kind] + "ForSequenceClassification", num_labels=3
        )
        write_hf_folder(theirs, folder)
    else:
        source = REFERENCE / "models" / "bart_n1024_short"
        torch.manual_seed(0)
        theirs = transformers.BartForSequenceClassification.from_pretrained(source, num_labels=3).eval()
        theirs.save_pretrained(folder)
        for path in source.iterdir():
            if not (folder / path.name).exists():
                (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": NAMES, "label2id": {}}))
    return theirs


@pytest.mark.parametrize(("kind", "stock"), [("bart", BARTHubInterface), ("roberta", RobertaHubInterface)])
def test_several_texts_as_fairseqs_interfaces_encode_them(kind: str, stock: type, tmp_path: Path) -> None:
    if kind == "bart" and not REFERENCE.is_dir():
        pytest.skip(f"needs the reference checkpoints in {REFERENCE}")
    save_model(kind, tmp_path / "hf")
    lsg = hub.lsg_bart_base(tmp_path / "hf") if kind == "bart" else hub.lsg_roberta_base(tmp_path / "hf")
    assert lsg.labels == list(NAMES.values())
    for texts in (("!#",), ("!#", "$"), ("!#", "$", "%&")):
        assert lsg.encode(*texts).tolist() == fairseqs_encode(stock, lsg, texts)
        for no_separator in (True, False):
            expected = fairseqs_encode(stock, lsg, texts, no_separator=no_separator)
            assert lsg.encode(*texts, no_separator=no_separator).tolist() == expected
            decoded = lsg.decode(torch.tensor(expected))
            assert decoded == fairseqs_decode(stock, lsg, torch.tensor(expected))
            assert decoded == (list(texts) if len(texts) > 1 and not no_separator else "".join(texts))
    assert lsg.predict("sentence_classification_head", lsg.encode("!#", "$")).shape == (1, 3)


@pytest.mark.parametrize(("kind", "texts"), [("roberta", ("!#", "$")), ("bert", ("the cat", "a mat"))])
def test_pairs_are_those_of_transformers_tokenizers(kind: str, texts: tuple[str, str], tmp_path: Path) -> None:
    save_model(kind, tmp_path / "hf")
    lsg = (hub.lsg_bert_base if kind == "bert" else hub.lsg_roberta_base)(tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    rows = torch.tensor([lsg._rows[token] for token in lsg.tokenizer.tokens])
    assert lsg.encode(*texts).tolist() == rows[theirs(*texts).input_ids].tolist()


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"id2label": NAMES}, list(NAMES.values())),
        ({"id2label": {"2": "c", "0": "a", "1": "b"}}, ["a", "b", "c"]),
        ({"id2label": {"0": "a", "1": "b"}}, []),
        ({"id2label": {"0": "a", "1": "b", "3": "c"}}, []),
        ({"id2label": {"0": "a", "1": 7, "2": "c"}}, []),
        ({"id2label": ["a", "b", "c"]}, []),
        ({}, []),
    ],
)
def test_names_of_classes(config: dict[str, object], names: list[str]) -> None:
    assert label_names(config, 3) == names
