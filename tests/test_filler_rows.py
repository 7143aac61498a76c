"""Models with more embedding rows than their tokenizer has tokens: every row is kept, there and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import write_jsonl
from encoder_models import TOKENS, build_hf_model, load_converted, transformers, write_hf_folder, write_tokenizer
from reference_checkpoints import REFERENCE

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.commands.preprocess import main as preprocess_main
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import ROWS_FILE
from lsg_fairseq.tokenizers.load import load_tokenizer


@pytest.mark.parametrize(
    ("model_type", "architecture", "tokenizer"),
    [
        ("bert", "BertForMaskedLM", "bert"),  # dbmdz/bert-base-italian
        ("bert", "BertModel", "xlm-roberta"),  # multilingual-e5-small
        ("roberta", "RobertaForMaskedLM", "roberta"),  # pad_to_multiple_of
    ],
)
def test_encoders_keep_every_row(model_type: str, architecture: str, tokenizer: str, tmp_path: Path) -> None:
    tokens = len(TOKENS[tokenizer])
    theirs = build_hf_model(model_type, architecture, vocab_size=tokens + 7, pad_token_id=1)
    theirs.save_pretrained(tmp_path / "hf")
    write_tokenizer(tokenizer, tmp_path / "hf")
    plan = convert_checkpoint(tmp_path / "hf", tmp_path / "out", 64)
    assert f"7 of {tokens + 7} embedding rows have no token and take filler symbols" in plan.source.notes
    export_checkpoint(tmp_path / "out", tmp_path / "back", short=True)
    assert not (tmp_path / "back" / ROWS_FILE).exists()
    again = getattr(transformers, architecture).from_pretrained(tmp_path / "back").eval()
    ids = torch.randint(5, tokens + 7, (2, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again(ids)[0], theirs(ids)[0], atol=1e-5, rtol=0)
    model, rows = load_converted(tmp_path / "out")
    assert len(rows) == len(set(rows.tolist())) == tokens + 7
    words = model.encoder.sentence_encoder.embed_tokens.weight
    assert torch.equal(words[rows], theirs.get_input_embeddings().weight)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")
@pytest.mark.parametrize(("name", "tokens"), [("bart_n1024_short", 340), ("pegasus_n1024_short", 330)])
def test_summarizers_train_on_data_of_the_converted_tokenizer(name: str, tokens: int, tmp_path: Path) -> None:
    """The vocabulary of the data has the fillers too, whichever folder names the tokenizer."""
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(REFERENCE / "models" / name)
    theirs.resize_token_embeddings(tokens + 12)
    source = tmp_path / "hf"
    theirs.save_pretrained(source)
    for path in (REFERENCE / "models" / name).iterdir():
        if not (source / path.name).exists():
            (source / path.name).write_bytes(path.read_bytes())
    convert_checkpoint(source, tmp_path / "out", 2048)
    expected = (tmp_path / "out" / "dict.txt").read_text()
    assert f"<no_token_{tokens + 11}> " in expected
    documents = write_jsonl(tmp_path / "train.jsonl", [10, 20], seed=0)
    for number, tokenizer in enumerate((source, tmp_path / "out" / "tokenizer")):
        data = tmp_path / f"data{number}"
        flags = ["--train", documents, "--out", data, "--tokenizer", tokenizer, "--workers", 1]
        assert preprocess_main(list(map(str, flags))) == 0
        assert (data / "dict.source.txt").read_text() == expected
    export_checkpoint(tmp_path / "out", tmp_path / "back", short=True)
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "back")
    assert torch.equal(again.get_input_embeddings().weight, theirs.get_input_embeddings().weight)
    assert torch.equal(again.final_logits_bias, theirs.final_logits_bias)


def test_fillers_are_no_text(tmp_path: Path) -> None:
    source = write_hf_folder(build_hf_model("bert", "BertModel", vocab_size=25), tmp_path / "hf")
    tokenizer = load_tokenizer(source)
    assert tokenizer.tokens[18:] == [f"<no_token_{i}>" for i in range(18, 25)]
    assert tokenizer.decode(["the", "<no_token_20>", "cat"]) == "the cat"
    assert "<no_token_20>" not in tokenizer.encode("the <no_token_20> cat")


@pytest.mark.parametrize("content", ["{}", "[]", "nothing", '{"embedding_rows": 9}', '{"embedding_rows": 1e9}'])
def test_a_damaged_statement_is_one_sentence(content: str, tmp_path: Path) -> None:
    write_tokenizer("bert", tmp_path)
    (tmp_path / ROWS_FILE).write_text(content)
    with pytest.raises(LSGError, match="must state embedding_rows as an integer from 18"):
        load_tokenizer(tmp_path)


def test_far_more_rows_are_another_models(tmp_path: Path) -> None:
    source = write_hf_folder(build_hf_model("bert", "BertModel"), tmp_path / "hf")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 30522}))
    with pytest.raises(LSGError, match="has 30522 embedding rows and its tokenizer 18 tokens"):
        convert_checkpoint(source, tmp_path / "out")
