"""An encoder-decoder that begins as an encoder: its vocabulary, its weights, and what they compute."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from encoder_models import WORDPIECES, build_hf_model, write_hf_folder
from transformers import AutoModel, BartForConditionalGeneration

from examples.manpages.training.warm_start import (
    FIRST,
    LAST,
    choose_pieces,
    count_pieces,
    embedding_reader,
    fit_linear,
    read_pieces,
    source_attention,
    write_start,
    write_vocabulary,
)
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer

LETTERS = [*"acmnst", *(f"##{letter}" for letter in "acmnst")]
VALUES = (torch.randn(16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(16.0))
KNOWN = list(dict.fromkeys([*WORDPIECES, *LETTERS]))


@pytest.fixture
def minibert(tmp_path: Path) -> Path:
    """A BERT of two layers with BART's epsilon, so that both compute the same."""
    model = build_hf_model("bert", "BertModel", vocab_size=len(KNOWN), layer_norm_eps=1e-5)
    folder = write_hf_folder(model, tmp_path / "bert")
    (folder / "vocab.txt").write_text("\n".join(KNOWN) + "\n")
    return folder


def kept(*pieces: str) -> list[str]:
    return [*FIRST, *(piece for piece in KNOWN if piece in pieces or piece in LETTERS), *LAST]


def test_choice_of_pieces() -> None:
    counts = Counter({"the": 5, "cat": 9, "mat": 5, "##s": 1, "[UNK]": 99, "<unk>": 99})
    room = len({*FIRST, *LAST}) + len([p for p in KNOWN if p.removeprefix("##") in set("thecatmas")])
    assert choose_pieces(counts, KNOWN, room + 1) == [*FIRST, *sorted_as_known(["cat"], "thecatmas"), *LAST]
    # Of two pieces that are as frequent the first in the old order stays.
    assert "the" in choose_pieces(counts, KNOWN, room + 2)
    assert "mat" not in choose_pieces(counts, KNOWN, room + 2)
    assert len(choose_pieces(counts, KNOWN, 1000)) == room + 3


def sorted_as_known(pieces: list[str], letters: str) -> list[str]:
    return [piece for piece in KNOWN if piece in pieces or piece.removeprefix("##") in set(letters)]


def test_pieces_are_counted_where_they_are_read(tmp_path: Path) -> None:
    write_vocabulary(kept("cat", "mat"), tmp_path)
    counted = count_pieces(["cat cat mat mat mat", "mats"], load_tokenizer(tmp_path), 3)
    assert counted == {"cat": 2, "mat": 2, "##s": 1}


def test_pieces_are_lines_and_nothing_else_ends_one(tmp_path: Path) -> None:
    """Some pieces are, or hold, what Python takes for the end of a line."""
    pieces = ["[PAD]", "\u2028", "a\x85b", "\x0c", "##c"]
    (tmp_path / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    assert read_pieces(tmp_path) == pieces


def test_too_small_for_the_characters() -> None:
    with pytest.raises(LSGError, match="has no room for 8 characters: give 13 or more"):
        choose_pieces(Counter({"cat": 1, "s": 1}), KNOWN, 5)


def test_nothing_becomes_unknown(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(KNOWN) + "\n")
    before = load_tokenizer(tmp_path)
    text = "cats sat, Cat mats: tan"
    pieces = choose_pieces(count_pieces([text], before, 100), read_pieces(tmp_path), 20)
    (tmp_path / "cut").mkdir()
    write_vocabulary(pieces, tmp_path / "cut")
    after = load_tokenizer(tmp_path / "cut")
    assert [t for t in after.encode(text) if t == after.unk] == [t for t in before.encode(text) if t == before.unk]
    assert after.decode(after.encode("cats tan")) == "cats tan"
    assert (after.bos, after.pad, after.eos, after.mask) == ("<s>", "<pad>", "</s>", "<mask>")


def test_encoder_computes_what_the_bert_does(minibert: Path, tmp_path: Path) -> None:
    """Kept words have the hidden states they have in transformers' own BERT."""
    out = tmp_path / "start"
    out.mkdir()
    write_start(minibert, kept("cat", "mat"), [1], VALUES, out)
    words = ["[CLS]", "cat", "mat", "c", "##a", "cat", "[SEP]"]
    bert, bart = AutoModel.from_pretrained(minibert), AutoModel.from_pretrained(out)
    with torch.no_grad():
        old = bert.eval()(torch.tensor([[KNOWN.index(word) for word in words]])).last_hidden_state
        ids = [read_pieces(out).index(word) for word in words]
        new = bart.eval().encoder(torch.tensor([ids])).last_hidden_state
    assert (old - new).abs().max() < 1e-5


def test_decoder_layers_are_copies(minibert: Path, tmp_path: Path) -> None:
    out = tmp_path / "start"
    out.mkdir()
    write_start(minibert, kept("cat"), [1, 0], VALUES, out)
    state = BartForConditionalGeneration.from_pretrained(out).state_dict()
    for number, layer in enumerate((1, 0)):
        for part in ("self_attn.v_proj.weight", "fc1.weight", "fc2.bias", "self_attn_layer_norm.weight"):
            copied = state[f"model.encoder.layers.{layer}.{part}"]
            assert torch.equal(state[f"model.decoder.layers.{number}.{part}"], copied)
    drawn = [state[f"model.decoder.layers.{number}.encoder_attn.q_proj.weight"] for number in (0, 1)]
    assert not torch.equal(*drawn)


def test_values_read_the_words_that_are_attended_to(minibert: Path) -> None:
    """Of a BERT's output, here two of its layers away, the fitted map finds the embedding of most tokens again."""
    tokenizer = load_tokenizer(minibert)
    text = "the cat sat on a mat and ran ! cats the mat running cat tan"
    weight, bias = embedding_reader(minibert, tokenizer, [text] * 4)
    bert = AutoModel.from_pretrained(minibert).eval()
    words = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
    ids = torch.tensor([[tokenizer.tokens.index(word) for word in words]])
    table = bert.get_input_embeddings().weight
    with torch.no_grad():
        read = bert(ids).last_hidden_state[0] @ weight.T + bias
        nearest = torch.cdist(read, table).argmin(1)
    assert (nearest == ids[0]).float().mean() > 0.7


def test_linear_fit_finds_the_map() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 5, generator=generator), torch.randn(3, generator=generator)
    inputs = torch.randn(200, 5, generator=generator)
    fitted = fit_linear(inputs, inputs @ weight.T + bias)
    assert torch.allclose(fitted[0], weight, atol=0.02)
    assert torch.allclose(fitted[1], bias, atol=0.02)


def test_source_attention_adds_what_the_values_read() -> None:
    """Where every source place is the same, the attention gives exactly the values' reading of it."""
    state = source_attention(VALUES, 0, "attn")
    place = torch.randn(16, generator=torch.Generator().manual_seed(1))
    read = state["attn.v_proj.weight"] @ place + state["attn.v_proj.bias"]
    assert torch.equal(state["attn.out_proj.weight"] @ read + state["attn.out_proj.bias"], read)
    assert torch.allclose(read, VALUES[0] @ place + VALUES[1])


def test_lsg_convert_reads_it(minibert: Path, tmp_path: Path) -> None:
    out = tmp_path / "start"
    out.mkdir()
    write_start(minibert, kept("cat", "mat"), [1], VALUES, out)
    convert_checkpoint(out, tmp_path / "lsg", 80, lsg={"block_size": 8, "sparse_block_size": 8})
    files = CheckpointFiles(tmp_path / "lsg" / "model.pt", tmp_path / "lsg", tmp_path / "lsg" / "tokenizer")
    _, model, tokenizer = load_task_and_model(files, Overrides())
    assert (len(model.encoder.layers), len(model.decoder.layers), model.max_positions()[0]) == (2, 1, 80)
    assert len(tokenizer.tokens) == len(kept("cat", "mat"))
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 40


@pytest.mark.parametrize(("pieces", "layers", "message"), [(["dog"], [0], "no piece 'dog'"), ([], [2], "not .2.")])
def test_what_the_encoder_lacks(
    minibert: Path, tmp_path: Path, pieces: list[str], layers: list[int], message: str
) -> None:
    with pytest.raises(LSGError, match=message):
        write_start(minibert, [*kept(), *pieces], layers, VALUES, tmp_path)
