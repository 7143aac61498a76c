"""torch.hub for encoder-only models: the entries, what a checkpoint may be, and LSGEncoderHubInterface."""

from __future__ import annotations

import re
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from encoder_models import build_hf_model, transformers, without_globals, write_hf_folder
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.models.roberta import RobertaHubInterface
from hub_checkpoints import documents_of, write_roberta_of_2019
from hub_server import FakeHub, serve, use_environment

from lsg_fairseq import hub
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.commands.summarize import main as summarize
from lsg_fairseq.hub.encoder import LSGEncoderHubInterface
from lsg_fairseq.hub.entry_checkpoints import ENTRY_CHECKPOINTS
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.state_dicts import HEAD_NAME

REFERENCE = Path(__file__).parent / "data" / "encoder_reference"
ENTRIES = {"bert": hub.lsg_bert_base, "roberta": hub.lsg_roberta_base}
# What the tiny tokenizers of encoder_models can spell.
TEXTS = {"bert": "The cat sat on a mats!", "roberta": "0 12, (3)"}


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions of this test go to a folder of its own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def lsg(pretrained: Path, corpus: Path) -> LSGEncoderHubInterface:
    return hub.lsg_roberta_base(pretrained, corpus / "tokenizer")


@pytest.fixture(scope="module")
def batch(lsg: LSGEncoderHubInterface, corpus: Path) -> torch.Tensor:
    """Documents from under 2 blocks to over 20 of them, padded on the right."""
    return lsg.collate([lsg.encode(document) for document in ("the cat sat", *documents_of(corpus))])


def from_torch_hub(entry: str, checkpoint: Path, **settings: object) -> LSGEncoderHubInterface:
    loaded = torch.hub.load(str(REPOSITORY), entry, source="local", trust_repo=True, checkpoint=checkpoint, **settings)
    assert isinstance(loaded, LSGEncoderHubInterface)
    assert not loaded.training
    return loaded


def as_fairseq_loads_it(path: Path) -> torch.nn.Module:
    return checkpoint_utils.load_model_ensemble([str(path)])[0][0].eval()


def is_the_model(lsg: LSGEncoderHubInterface, model: torch.nn.Module, tokens: torch.Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(lsg.extract_features(tokens), model(tokens, features_only=True)[0])


# --- what a checkpoint may be ---------------------------------------------------------------------------------------


def test_masked_lm_training_folder(pretrained: Path, corpus: Path, batch: torch.Tensor) -> None:
    lsg = from_torch_hub("lsg_roberta_base", pretrained, tokenizer=corpus / "tokenizer")
    assert lsg.max_source_tokens == 4096
    assert is_the_model(lsg, as_fairseq_loads_it(pretrained / "checkpoint_best.pt"), batch)
    with pytest.raises(LSGError, match=r"comes without a tokenizer \(looked in .*give its folder as tokenizer="):
        hub.lsg_roberta_base(pretrained)


def test_sentence_prediction_training_folder(
    classifier: Path, labelled: Path, corpus: Path, batch: torch.Tensor
) -> None:
    """The tokenizer is found in the data folder, whose dictionary is the one of input0."""
    shutil.copytree(corpus / "tokenizer", labelled / "tokenizer", dirs_exist_ok=True)
    lsg = from_torch_hub("lsg_roberta_base", classifier.parent)
    model = as_fairseq_loads_it(classifier)
    assert lsg.max_source_tokens == 5000
    assert lsg.task.source_dictionary == model.encoder.dictionary
    assert is_the_model(lsg, model, batch)
    logits = model(batch, classification_head_name=HEAD_NAME)[0]
    assert torch.equal(lsg.predict(HEAD_NAME, batch, return_logits=True), logits)


def test_dictionary_of_the_data_folder_wins(pretrained: Path, corpus: Path, tmp_path: Path) -> None:
    """A tokenizer from elsewhere does not change which row a token has: the checkpoint's data says that."""
    shutil.copytree(corpus / "tokenizer", tmp_path / "moved")
    dictionary, other = Dictionary.load(str(corpus / "dict.txt")), Dictionary()
    for symbol in reversed(dictionary.symbols[4:]):
        other.add_symbol(symbol)
    (tmp_path / "data").mkdir()
    other.save(str(tmp_path / "data" / "dict.txt"))
    state = torch.load(pretrained / "checkpoint_best.pt", weights_only=False)
    state["cfg"]["task"]["data"] = str(tmp_path / "data")
    (tmp_path / "run").mkdir()
    torch.save(state, tmp_path / "run" / "checkpoint_best.pt")
    lsg = hub.lsg_roberta_base(tmp_path / "run", tmp_path / "moved")
    assert lsg.task.source_dictionary.symbols == other.symbols
    assert lsg.decode(lsg.encode("the cat sat")) == "the cat sat"


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [("bert", "BertForMaskedLM"), ("roberta", "RobertaForMaskedLM"), ("bert", "BertForSequenceClassification"),
     ("roberta", "RobertaForSequenceClassification")],
)  # fmt: skip
@pytest.mark.usefixtures("no_cache")
@torch.no_grad()
def test_hugging_face_folder_from_text_to_transformers_outputs(
    model_type: str, architecture: str, tmp_path: Path
) -> None:
    theirs = build_hf_model(model_type, architecture, num_labels=3)
    folder = write_hf_folder(theirs, tmp_path / "hf")
    lsg = from_torch_hub(f"lsg_{model_type}_base", folder, attention="full", pool_with_global=False)
    without_globals(lsg.model)
    text = TEXTS[model_type]
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    features = lsg.extract_features(lsg.encode(text))
    torch.testing.assert_close(features, theirs.base_model(**inputs).last_hidden_state, atol=1e-5, rtol=0)
    if "Classification" in architecture:
        (head,) = lsg.model.classification_heads
        found = lsg.predict(head, lsg.encode(text))
        torch.testing.assert_close(found, theirs(**inputs).logits.log_softmax(-1), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("no_cache")
def test_short_and_converted_and_longer(tmp_path: Path) -> None:
    """A short Hugging Face folder, what lsg-convert makes of it, and its cached conversion are one model."""
    source = REFERENCE / "bert_mlm"
    lsg = hub.lsg_bert_base(source)
    assert (lsg.max_source_tokens, lsg.encode("the cat")[0]) == (4096, 0)
    convert_checkpoint(source, tmp_path / "converted")
    tokens = torch.randint(4, 43, (2, 600), generator=torch.Generator().manual_seed(0))
    for again in (hub.lsg_bert_base(source), from_torch_hub("lsg_bert_base", tmp_path / "converted")):
        assert is_the_model(again, lsg.model, tokens)
    assert len(list((tmp_path / "torch").rglob("model.pt"))) == 1
    longer = hub.lsg_bert_base(tmp_path / "converted", max_source_positions=9000)
    assert longer.max_source_tokens == 9000
    assert is_the_model(longer, lsg.model, tokens)
    longest = torch.randint(4, 43, (9000,))
    assert longer.extract_features(longest).shape == (1, 9000, 16)
    with pytest.raises(
        LSGError, match="this model reads at most 4096 tokens, not 9000: load it with max_source_positions"
    ):
        lsg.extract_features(longest)


@pytest.mark.usefixtures("no_cache")
def test_stock_fairseq_roberta(corpus: Path, tmp_path: Path) -> None:
    """fairseq's own roberta.base/model.pt with a Hugging Face tokenizer."""
    dictionary = Dictionary.load(str(corpus / "dict.txt"))
    weights = write_roberta_of_2019(dictionary, tmp_path / "model.pt")
    shutil.copy(corpus / "dict.txt", tmp_path)
    lsg = from_torch_hub("lsg_roberta_base", tmp_path, tokenizer=corpus / "tokenizer", block_size=32)
    state = lsg.model.state_dict()
    key = "encoder.sentence_encoder.embed_positions.weight"
    assert torch.equal(state[key][2:], weights[key][2:].repeat(64, 1))
    assert all(torch.equal(state[name], weights[name]) for name in weights.keys() - {key})
    assert lsg.model.encoder.sentence_encoder.lsg_config.block_size == 32
    with pytest.raises(LSGError, match=rf"^{re.escape(str(tmp_path))}/model.pt comes without a tokenizer"):
        hub.lsg_roberta_base(tmp_path)


@pytest.mark.parametrize("name", ["lsg_roberta_base", "lsg_bert_base"])
def test_published_weights_are_the_default(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = REFERENCE / f"{ENTRY_CHECKPOINTS[name].family}_lsg"
    with serve(FakeHub.from_folder(ENTRY_CHECKPOINTS[name].location, folder)) as running:
        use_environment(monkeypatch, HF_ENDPOINT=running.url, HF_HOME=tmp_path / "hf", TORCH_HOME=tmp_path / "torch")
        lsg = getattr(hub, name)(block_size=32)
        assert "modeling_lsg_bart.py" not in running.fetched()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "other"))
    tokens = torch.randint(4, 43, (1, 300))
    assert is_the_model(lsg, getattr(hub, name)(folder, block_size=32).model, tokens)


# --- features and classes -------------------------------------------------------------------------------------------


def test_a_row_of_a_batch_is_the_document_alone(lsg: LSGEncoderHubInterface, batch: torch.Tensor) -> None:
    together, lengths = lsg.extract_features(batch), batch.ne(1).sum(1).tolist()
    assert together.shape == (*batch.shape, 32)
    assert min(lengths) < 32 < 320 < max(lengths)
    longer = lsg.extract_features(lsg.collate(list(batch), length=batch.size(1) + 50))
    for row, length in enumerate(lengths):
        alone = lsg.extract_features(batch[row, :length])
        torch.testing.assert_close(together[row, :length], alone[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(longer[row, :length], alone[0], atol=2e-6, rtol=1e-5)


def test_features_masks_and_classes_are_those_of_fairseqs_own_interface(
    lsg: LSGEncoderHubInterface, classifier: Path, corpus: Path, batch: torch.Tensor
) -> None:
    bpe = Namespace(bpe="lsg", lsg_tokenizer=str(corpus / "tokenizer"))
    theirs = RobertaHubInterface(Namespace(bpe=bpe), lsg.task, lsg.model)
    text = "the cat sat on a mat while rain fell"
    assert torch.equal(lsg.encode(text), theirs.encode(text))
    for tokens in (batch, batch[0, :9]):
        assert torch.equal(lsg.extract_features(tokens), theirs.extract_features(tokens))
        hiddens = lsg.extract_features(tokens, return_all_hiddens=True)
        assert len(hiddens) == 1 + 2
        for ours, other in zip(hiddens, theirs.extract_features(tokens, return_all_hiddens=True), strict=True):
            assert torch.equal(ours, other)
        assert torch.equal(hiddens[-1], lsg.extract_features(tokens))
    for masked in ("the cat <mask> on a mat", "<mask> cat sat", "the cat<mask>"):
        expected = theirs.fill_mask(masked, topk=4)
        found = lsg.fill_mask(masked, topk=4)
        assert [text for text, _ in found] == [text for text, _, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score, _ in expected], rel=1e-5)
    ours = hub.lsg_roberta_base(classifier, corpus / "tokenizer")
    theirs = RobertaHubInterface(Namespace(bpe=bpe), ours.task, ours.model)
    for is_logits in (False, True):
        torch.testing.assert_close(*(each.predict(HEAD_NAME, batch, is_logits) for each in (ours, theirs)))


def test_predict_reads_the_first_row(lsg: LSGEncoderHubInterface, batch: torch.Tensor, pretrained: Path) -> None:
    lsg.register_classification_head("topic", num_classes=3, inner_dim=8)
    head = lsg.model.classification_heads["topic"]
    first = lsg.extract_features(batch)[:, 0]
    expected = head.out_proj(head.dense(first).tanh()).log_softmax(-1)
    torch.testing.assert_close(lsg.predict("topic", batch), expected)
    torch.testing.assert_close(lsg.predict("topic", batch[2, :5]).exp().sum(), torch.tensor(1.0))
    with pytest.raises(LSGError, match=r"no classification head 'mood' \(present: 'topic'\)"):
        lsg.predict("mood", batch)
    with pytest.raises(LSGError, match="already"):
        lsg.register_classification_head("topic", 3)


def test_forward_is_the_models(lsg: LSGEncoderHubInterface, batch: torch.Tensor) -> None:
    logits, _ = lsg(batch)
    assert torch.equal(logits, lsg.model(batch)[0])
    masked = batch.eq(5)
    torch.testing.assert_close(lsg(batch, masked_tokens=masked)[0], logits[masked])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types_return_the_interface(pretrained: Path, corpus: Path, dtype: torch.dtype) -> None:
    lsg = hub.lsg_roberta_base(pretrained, corpus / "tokenizer").to(dtype)
    assert isinstance(lsg, LSGEncoderHubInterface)
    assert lsg.extract_features(lsg.encode("the cat " * 40)).dtype == dtype
    assert 0 < lsg.fill_mask("the <mask>", topk=1)[0][1] <= 1


# --- masks ----------------------------------------------------------------------------------------------------------


def test_fill_mask_of_a_model_that_knows_what_it_wants(pretrained: Path, corpus: Path) -> None:
    """With no embeddings left, the head's bias is all there is: the probabilities of every gap."""
    lsg = hub.lsg_roberta_base(pretrained, corpus / "tokenizer")
    state = lsg.model.state_dict()
    state["encoder.lm_head.weight"].zero_()
    bias = state["encoder.lm_head.bias"].fill_(float("-inf"))
    tokens = [token for token in lsg.tokenizer.tokens if re.fullmatch("Ġ[a-z]+", token)]
    wanted = {token.replace("Ġ", " "): score for token, score in zip(tokens, (0.5, 0.375, 0.125), strict=False)}
    for word, probability in wanted.items():
        bias[lsg.encode(word)[1:-1]] = torch.tensor(probability).log()
    filled = lsg.fill_mask("the cat <mask> on", topk=3)
    assert [text for text, _ in filled] == [f"the cat{word} on" for word in wanted]
    assert [score for _, score in filled] == pytest.approx(list(wanted.values()))
    best = next(iter(wanted))
    several = lsg.fill_mask(["the <mask>", "a<mask> cat"], topk=1)
    assert several == [[(f"the{best}", pytest.approx(0.5))], [(f"a{best} cat", pytest.approx(0.5))]]
    lsg.train()
    assert lsg.fill_mask("the cat <mask> on", topk=3) == filled
    assert lsg.model.training


@pytest.mark.parametrize(
    ("text", "topk", "message"),
    [
        ("the cat", 5, "needs the mask token '<mask>' exactly once in each text, not 0 times"),
        ("<mask> and <mask>", 5, "needs the mask token '<mask>' exactly once in each text, not 2 times"),
        ("the <mask>", 0, "topk must be an integer from 1 to 300, the size of the vocabulary, not 0"),
        ("the <mask>", 301, "topk must be an integer from 1 to 300"),
        ("the <mask>", True, "topk must be an integer from 1 to 300"),
        (["the <mask>", 3], 5, "a text must be a str, not int: 3"),
        ("the <mask>" + " cat" * 5000, 5, "this model reads at most 4096 tokens, not 15005"),
    ],
)
def test_masks_that_cannot_be_filled(lsg: LSGEncoderHubInterface, text: object, topk: object, message: str) -> None:
    with pytest.raises(LSGError, match=re.escape(message)):
        lsg.fill_mask(text, topk)


@pytest.mark.usefixtures("no_cache")
def test_bert_has_masks_of_its_own_name_and_needs_its_head(tmp_path: Path) -> None:
    lsg = hub.lsg_bert_base(write_hf_folder(build_hf_model("bert", "BertForMaskedLM"), tmp_path / "hf"))
    (text, score), *rest = lsg.fill_mask("the [MASK] sat", topk=3)
    assert len(rest) == 2
    assert "[MASK]" not in text
    assert 0 < score < 1
    with pytest.raises(LSGError, match=re.escape("needs the mask token '[MASK]' exactly once in each text, not 0")):
        lsg.fill_mask("the <mask> sat")
    headless = hub.lsg_bert_base(write_hf_folder(build_hf_model("bert", "BertModel"), tmp_path / "headless"))
    with pytest.raises(LSGError, match="needs a masked-LM head, which this checkpoint does not have"):
        headless.fill_mask("the [MASK] sat")


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.usefixtures("no_cache")
def test_entries_of_other_families_name_the_right_one(family: str, tmp_path: Path) -> None:
    converted = tmp_path / "converted"
    convert_checkpoint(REFERENCE / f"{family}_lsg", converted)
    for checkpoint in (REFERENCE / f"{family}_lsg", converted):
        for entry in (hub.lsg_bart_base, hub.lsg_pegasus_large, ENTRIES["bert" if family == "roberta" else "roberta"]):
            message = f"is a {family} checkpoint: load it with lsg_{family}_base instead"
            with pytest.raises(LSGError, match=message):
                entry(checkpoint)
    assert not list((tmp_path / "torch").rglob("model.pt")), "nothing is converted in vain"


def test_encoder_entries_refuse_encoder_decoders(checkpoints: Path) -> None:
    with pytest.raises(LSGError, match="is a bart checkpoint: load it with lsg_bart_base or lsg_bart_large instead"):
        hub.lsg_roberta_base(checkpoints)


def test_an_encoder_cannot_summarise(
    lsg: LSGEncoderHubInterface, pretrained: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not hasattr(lsg, "summarize")
    with pytest.raises(
        AttributeError, match=r"an encoder-only model cannot summarise: \.summarize needs a BART or Pegasus"
    ):
        lsg.summarize("the cat")
    with pytest.raises(AttributeError, match="has no attribute 'sumarize'"):
        lsg.sumarize("the cat")
    (tmp_path / "paper.txt").write_text("the cat sat")
    command = [str(tmp_path / "paper.txt"), "--checkpoint", str(pretrained), "--tokenizer", str(corpus / "tokenizer")]
    assert summarize(command) == 1
    assert f"{pretrained} is an encoder-only model, which cannot summarise" in capsys.readouterr().err
    assert summarize([str(tmp_path / "paper.txt"), "--checkpoint", "lsg_bert_base"]) == 1
    assert "lsg_bert_base is an encoder-only model, which cannot summarise" in capsys.readouterr().err


def test_wrong_settings_and_tokens_are_one_sentence(
    lsg: LSGEncoderHubInterface, pretrained: Path, corpus: Path, batch: torch.Tensor
) -> None:
    with pytest.raises(LSGError, match="pass_global_tokens_to_decoder must be false for an encoder-only model"):
        hub.lsg_roberta_base(pretrained, corpus, pass_global_tokens_to_decoder=True)
    with pytest.raises(LSGError, match=r"lsg_bert_base has no setting 'blocksize' \(did you mean 'block_size'\?\)"):
        hub.lsg_bert_base(blocksize=3)
    with pytest.raises(LSGError, match="a row of src_tokens begins with <pad>"):
        lsg.extract_features(batch.flip(1))
    short = hub.lsg_roberta_base(pretrained, corpus / "tokenizer", max_source_positions=64)
    assert short.extract_features(batch[:, :64]).shape == (len(batch), 64, 32)
    with pytest.raises(
        LSGError, match="this model reads at most 64 tokens, not 65: load it with max_source_positions=65"
    ):
        short.extract_features(batch[:, :65])


def test_help_of_an_encoder_speaks_of_encoders() -> None:
    for name, published in ENTRY_CHECKPOINTS.items():
        text = getattr(hub, name).__doc__
        is_encoder = published.family in ENTRIES
        assert ("summarize" in text) != is_encoder
        assert ("extract_features(lsg.encode(document))" in text) == is_encoder
        assert "{" not in text
