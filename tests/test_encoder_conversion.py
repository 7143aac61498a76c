"""BERT, RoBERTa and the like: transformers' own outputs, tensors there and back, and what is refused."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ENCODER_SIZES
from encoder_models import (
    POSITIONS,
    build_hf_model,
    convert_and_load,
    load_converted,
    rewrite_tensors,
    transformers,
    without_globals,
    write_hf_folder,
    write_tokenizer,
)
from fairseq.models.roberta.model import RobertaModel
from reference_checkpoints import differing
from safetensors.torch import load_file
from test_roberta_commands import write_roberta_of_2019
from torch import Tensor, nn

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.commands.convert import main as convert_main
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.huggingface.config import read_config
from lsg_fairseq.huggingface.read_folder import read_hf_folder
from lsg_fairseq.huggingface.seq2seq_weights import convert_from_hf, convert_to_hf
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, load_tokenizer
from lsg_fairseq.weights.state_dicts import HEAD_NAME
from lsg_fairseq.weights.upgrades import has_initial_lm_head

MODELS = [
    ("bert", "BertModel"),
    ("bert", "BertForMaskedLM"),
    ("bert", "BertForPreTraining"),
    ("bert", "BertForSequenceClassification"),
    ("roberta", "RobertaModel"),
    ("roberta", "RobertaForMaskedLM"),
    ("roberta", "RobertaForSequenceClassification"),
    ("camembert", "CamembertForMaskedLM"),
    ("xlm-roberta", "XLMRobertaForMaskedLM"),
    ("distilbert", "DistilBertForMaskedLM"),
    ("distilbert", "DistilBertForSequenceClassification"),
    ("electra", "ElectraForMaskedLM"),
    ("electra", "ElectraForSequenceClassification"),
]
DTYPES = [(torch.float32, False, "float32"), (torch.float32, True, "float16"), (torch.bfloat16, False, "bfloat16")]
all_models = pytest.mark.parametrize(("model_type", "architecture"), MODELS, ids=[name for _, name in MODELS])
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
POSITION_ROWS = "embeddings.position_embeddings.weight"


def random_ids(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of three sequences, two of them padded on the right."""
    pad = model.config.pad_token_id
    torch.manual_seed(1)
    ids = torch.randint(model.config.vocab_size - 1, (3, 20))
    ids[ids == pad] += 1
    mask = torch.arange(20)[None] < torch.tensor([20, 13, 5])[:, None]
    return ids.masked_fill(~mask, pad), mask


@torch.no_grad()
@all_models
def test_outputs_of_the_short_model(model_type: str, architecture: str, tmp_path: Path) -> None:
    """Without its global key, a converted model computes what transformers does: features and every head."""
    theirs = build_hf_model(model_type, architecture, num_labels=3)
    ours, rows = convert_and_load(
        write_hf_folder(theirs, tmp_path / "hf"), tmp_path / "out", POSITIONS, attention="full", pool_with_global=False
    )
    without_globals(ours)
    ids, mask = random_ids(theirs)
    tokens = rows[ids]
    encoded = theirs.base_model(input_ids=ids, attention_mask=mask.long())
    features = ours(tokens, features_only=True)[0]
    torch.testing.assert_close(features[mask], encoded.last_hidden_state[mask], atol=1e-5, rtol=0)
    expected = theirs(input_ids=ids, attention_mask=mask.long())
    if architecture.endswith(("ForMaskedLM", "ForPreTraining")):
        logits = expected.prediction_logits if "prediction_logits" in expected else expected.logits
        torch.testing.assert_close(ours(tokens)[0][..., rows][mask], logits[mask], atol=1e-5, rtol=0)
    heads = {"classification": (HEAD_NAME, "logits")} if "Classification" in architecture else {}
    heads |= {"nsp": ("next_sentence", "seq_relationship_logits")} if "PreTraining" in architecture else {}
    heads |= {"pooler": ("pooler", "pooler_output")} if architecture in ("BertModel", "RobertaModel") else {}
    assert sorted(ours.classification_heads) == sorted(name for name, _ in heads.values())
    for name, output in heads.values():
        found = ours.classification_heads[name](features)
        # A pooler's output is what its head gives, the identity behind it included.
        torch.testing.assert_close(found, expected[output], atol=1e-5, rtol=0)


@all_models
def test_there_and_back(model_type: str, architecture: str, tmp_path: Path) -> None:
    """Tensors bit for bit but for the token types, which are in the positions; transformers computes the same."""
    theirs = build_hf_model(model_type, architecture, num_labels=3)
    source = write_hf_folder(theirs, tmp_path / "hf")
    convert_checkpoint(source, tmp_path / "out", 100)
    assert export_checkpoint(tmp_path / "out", tmp_path / "back", short=True) == []
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "back"))
    changed = differing(before, after)
    folded = [key for key in before if key.endswith((TOKEN_TYPES, POSITION_ROWS))] if model_type != "distilbert" else []
    assert changed == sorted(folded)
    assert not any(after[key].any() for key in folded if key.endswith(TOKEN_TYPES))
    configs = [json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "back")]
    assert configs[0] == configs[1]
    again = getattr(transformers, architecture).from_pretrained(tmp_path / "back").eval()
    ids, mask = random_ids(theirs)
    outputs = [model(input_ids=ids, attention_mask=mask.long()) for model in (theirs, again)]
    for key, value in outputs[0].items():
        torch.testing.assert_close(outputs[1][key], value, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ["BertModel", "RobertaForMaskedLM", "RobertaModel"])
def test_half_precision_is_converted_as_float32(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Global rows and the token type in the positions are sums, which half precision would round."""
    theirs = build_hf_model("bert" if architecture.startswith("Bert") else "roberta", architecture).to(dtype)
    half = write_hf_folder(theirs, tmp_path / "half")
    full = write_hf_folder(theirs.float(), tmp_path / "full")
    states = []
    for source in (half, full):
        model = convert_and_load(source, tmp_path / f"{source.name}_out", 100)[0]
        states.append(model.state_dict())
    assert differing(*states) == []
    # An untrained masked-LM head is still known as one.
    assert {has_initial_lm_head(state) for state in states} == {architecture.endswith("Model")}


@pytest.mark.parametrize(("dtype", "half", "written"), DTYPES)
def test_exported_config_states_the_dtype_of_the_tensors(
    dtype: torch.dtype, half: bool, written: str, tmp_path: Path
) -> None:
    """transformers 5 loads in the dtype that config.json states, whatever the tensors are."""
    theirs = build_hf_model("roberta", "RobertaForMaskedLM")
    theirs.base_model.embeddings.token_type_embeddings.weight.data.zero_()
    source = write_hf_folder(theirs.to(dtype), tmp_path / "hf")
    path = source / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"torch_dtype": "float64", "dtype": "float64"}))
    convert_checkpoint(source, tmp_path / "out", 100)
    export_checkpoint(tmp_path / "out", tmp_path / "back", short=True, half=half)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (config["torch_dtype"], "dtype" in config) == (written, False)
    assert str(transformers.AutoModel.from_pretrained(tmp_path / "back").dtype) == f"torch.{written}"


@pytest.mark.parametrize("architecture", ["BertModel", "RobertaForMaskedLM"])
def test_nothing_changes_where_token_type_0_is_zero(architecture: str, tmp_path: Path) -> None:
    model_type = "bert" if architecture.startswith("Bert") else "roberta"
    theirs = build_hf_model(model_type, architecture)
    theirs.base_model.embeddings.token_type_embeddings.weight.data.zero_()
    source = write_hf_folder(theirs, tmp_path / "hf")
    convert_checkpoint(source, tmp_path / "out", 100)
    export_checkpoint(tmp_path / "out", tmp_path / "back", short=True)
    assert differing(*(load_file(folder / "model.safetensors") for folder in (source, tmp_path / "back"))) == []


def test_lsg_export_comes_back(tmp_path: Path) -> None:
    """An exported LSG model has the public layout: reading it again gives the model that was exported."""
    source = write_hf_folder(build_hf_model("bert", "BertForSequenceClassification"), tmp_path / "hf")
    convert_checkpoint(source, tmp_path / "out", 100, lsg={"block_size": 8, "sparse_block_size": 8})
    export_checkpoint(tmp_path / "out", tmp_path / "lsg")
    config = json.loads((tmp_path / "lsg" / "config.json").read_text())
    assert config["architectures"] == ["LSGBertForSequenceClassification"]
    assert (config["base_model_prefix"], config["block_size"], config["max_position_embeddings"]) == ("lsg", 8, 100)
    assert "pass_global_tokens_to_decoder" not in config
    assert "bert.embeddings.global_embeddings.weight" in load_file(tmp_path / "lsg" / "model.safetensors")
    convert_checkpoint(tmp_path / "lsg", tmp_path / "again")
    states = [load_checkpoint_file(tmp_path / name / "model.pt")["model"] for name in ("out", "again")]
    assert differing(*states) == []


def test_converted_folder_and_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No generation settings; what became of the pooler is printed and written down; masked_lm is the stored task."""
    source = write_hf_folder(build_hf_model("bert", "BertModel"), tmp_path / "hf")
    assert convert_main([str(source), str(tmp_path / "out"), "--max-source-positions", "64"]) == 0
    printed = capsys.readouterr().out
    notes = json.loads((tmp_path / "out" / "hf_config.json").read_text())["notes"]
    for words in ("classification head 'pooler'", "no masked-LM head", "added to the positions", "not carried (1 of 2"):
        assert words in printed
        assert any(words in note for note in notes)
    assert "positions: 40 -> 64" in printed
    assert "target" not in printed
    assert not list((tmp_path / "out").glob("generation*"))
    content = load_checkpoint_file(tmp_path / "out" / "model.pt")
    assert content["cfg"]["task"]["_name"] == "masked_lm"
    args = content["cfg"]["model"]
    assert (args.arch, args.max_positions, args.layer_norm_eps) == ("lsg_bert_base", 64, 1e-12)
    assert args.lsg_pass_global_tokens_to_decoder is False


@pytest.mark.parametrize("decay", [1.0, 0.3])
def test_untrained_masked_lm_head_is_left_out_of_an_export(decay: float, tmp_path: Path) -> None:
    """Weight decay reaches it with --fp16, though a classifier's training has no gradient for it."""
    source = write_hf_folder(build_hf_model("roberta", "RobertaForSequenceClassification"), tmp_path / "hf")
    model, _ = convert_and_load(source, tmp_path / "out", POSITIONS)
    path = tmp_path / "out" / "model.pt"
    content = load_checkpoint_file(path)
    content["model"] = model.state_dict()
    for name in ("dense.weight", "layer_norm.weight"):
        content["model"][f"encoder.lm_head.{name}"] *= decay
    torch.save(content, path)
    assert export_checkpoint(tmp_path / "out", tmp_path / "back", short=True) == [
        "the masked-LM head was never trained and is left out"
    ]
    assert not any(key.startswith("lm_head.") for key in load_file(tmp_path / "back" / "model.safetensors"))


def test_old_names_and_buffers(tmp_path: Path) -> None:
    """bert-base-uncased's file: gamma and beta, position_ids, and a copy of the output bias."""
    source = write_hf_folder(build_hf_model("bert", "BertForPreTraining"), tmp_path / "hf")
    checkpoint = read_hf_folder(source)
    spec, tensors = read_config(checkpoint.config)[0], dict(checkpoint.tensors)
    rename = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    old = {}
    for key, value in tensors.items():
        end = next((end for end in rename if key.endswith(end)), "")
        old[key.removesuffix(end) + rename.get(end, "")] = value
    old["bert.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    assert differing(convert_from_hf(old, spec), convert_from_hf(tensors, spec)) == []


@torch.no_grad()
def test_fairseqs_own_roberta_in_transformers(tmp_path: Path) -> None:
    """roberta.base's file -> lsg-convert -> lsg-export --short: transformers computes what fairseq does."""
    (tmp_path / "tokenizer").mkdir()
    write_tokenizer("roberta", tmp_path / "tokenizer")
    dictionary = build_dictionary(load_tokenizer(tmp_path / "tokenizer"))
    state = write_roberta_of_2019(dictionary, tmp_path / "model.pt")
    convert_checkpoint(tmp_path / "model.pt", tmp_path / "out", 128, tokenizer=tmp_path / "tokenizer")
    assert export_checkpoint(tmp_path / "out", tmp_path / "hf", short=True) == ["all 128 positions are kept"]
    args = Namespace(**ENCODER_SIZES, max_positions=64)
    stock = RobertaModel.build_model(args, Namespace(source_dictionary=dictionary))
    stock.load_state_dict(state, strict=False)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "hf").eval()
    assert type(theirs).__name__ == "RobertaForMaskedLM"
    ids, mask = random_ids(theirs)
    logits = theirs(input_ids=ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(logits[mask], stock.eval()(ids)[0][mask], atol=1e-5, rtol=0)


# --- strictness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model_type", "architecture"), [MODELS[2], MODELS[5], MODELS[9]])
@pytest.mark.parametrize("direction", ["from_hf", "to_hf"])
def test_one_error_names_every_key_that_is_wrong(
    model_type: str, architecture: str, direction: str, tmp_path: Path
) -> None:
    checkpoint = read_hf_folder(write_hf_folder(build_hf_model(model_type, architecture), tmp_path))
    spec = read_config(checkpoint.config)[0]
    state, convert = dict(checkpoint.tensors), convert_from_hf
    if direction == "to_hf":
        state, convert = convert_from_hf(state, spec), convert_to_hf
    layers = sorted(key for key in state if "layer.0." in key or "layers.0." in key)
    missing, misshapen = layers[1], layers[4]
    heads = sorted(key for key in state if key.startswith(("cls.", "lm_head.dense", "vocab_", "encoder.lm_head.dense")))
    del state[missing], state[heads[0]]
    state |= {misshapen: torch.zeros(3, 5), "something.else": torch.zeros(1)}
    with pytest.raises(LSGError) as error:
        convert(state, spec)
    text = str(error.value)
    assert missing in text.split("; ")[0]
    assert heads[0] in text.split("; ")[0]
    assert "unexpected: something.else" in text
    assert f"{misshapen} is [3, 5] and not" in text


def test_untied_output_is_refused(tmp_path: Path) -> None:
    checkpoint = read_hf_folder(write_hf_folder(build_hf_model("roberta", "RobertaForMaskedLM"), tmp_path))
    spec, tensors = read_config(checkpoint.config)[0], dict(checkpoint.tensors)
    untied = tensors | {"lm_head.decoder.weight": tensors["roberta.embeddings.word_embeddings.weight"] + 1}
    with pytest.raises(LSGError, match=r"lm_head\.decoder\.weight must be equal to roberta\.embeddings"):
        convert_from_hf(untied, spec)
    state = convert_from_hf(tensors, spec)
    state["encoder.lm_head.weight"] = state["encoder.lm_head.weight"] + 1
    with pytest.raises(LSGError, match=r"encoder\.lm_head\.weight must be equal to"):
        convert_to_hf(state, spec)


def test_a_bert_has_one_pooler(tmp_path: Path) -> None:
    checkpoint = read_hf_folder(write_hf_folder(build_hf_model("bert", "BertModel"), tmp_path))
    spec = read_config(checkpoint.config)[0]
    state = convert_from_hf(checkpoint.tensors, spec)
    more = {f"classification_heads.topics.{part}.{kind}": t for part, kind, t in head_tensors(spec.embed_dim)}
    with pytest.raises(LSGError, match=r"one pooler, and 2 classification heads need it \(pooler, topics\)"):
        convert_to_hf(state | more, spec)
    other = {key.replace(".topics.", ".tones."): value for key, value in more.items()}
    with pytest.raises(LSGError, match=r"this one has 2 \(tones, topics\)"):
        convert_to_hf(state | more | other, spec)


def head_tensors(dim: int) -> list[tuple[str, str, Tensor]]:
    shapes = {("dense", "weight"): (dim, dim), ("dense", "bias"): (dim,)}
    shapes |= {("out_proj", "weight"): (4, dim), ("out_proj", "bias"): (4,)}
    return [(part, kind, torch.randn(shape)) for (part, kind), shape in shapes.items()]


def test_head_of_another_task_is_refused(tmp_path: Path) -> None:
    source = write_hf_folder(build_hf_model("bert", "BertForQuestionAnswering"), tmp_path / "hf")
    with pytest.raises(LSGError, match=r"BertForQuestionAnswering, whose head \(qa_outputs\) has no counterpart"):
        convert_checkpoint(source, tmp_path / "out")


def test_electras_discriminator_is_named_as_not_carried(tmp_path: Path) -> None:
    source = write_hf_folder(build_hf_model("electra", "ElectraForPreTraining"), tmp_path / "hf")
    plan = convert_checkpoint(source, tmp_path / "out", POSITIONS)
    note = next(note for note in plan.source.notes if "discriminator" in note)
    assert "discriminator_predictions.dense.weight" in note
    assert not load_converted(tmp_path / "out")[0].classification_heads


BAD_CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"position_embedding_type": "relative_key"}, "only position_embedding_type='absolute' can be built"),
    ({"is_decoder": True}, "only is_decoder=False can be built"),
    ({"add_cross_attention": True}, "only add_cross_attention=False can be built"),
    ({"hidden_act": "silu"}, "hidden_act 'silu' has no counterpart"),
    ({"hidden_size": 0}, "hidden_size as a positive integer, not 0"),
    ({"layer_norm_eps": 0}, "layer_norm_eps as a number between 0 and 1, not 0"),
    ({"hidden_dropout_prob": 2}, "hidden_dropout_prob as a number from 0 to 1, not 2"),
    ({"model_type": "roberta", "pad_token_id": 0}, "only pad_token_id=1 can be built"),
    ({"model_type": "roberta", "max_position_embeddings": 2}, "max_position_embeddings above 2"),
    ({"model_type": "electra"}, "only embedding_size=256 can be built"),
]


@pytest.mark.parametrize(("config", "words"), BAD_CONFIGS, ids=[next(reversed(bad)) for bad, _ in BAD_CONFIGS])
def test_configurations_that_are_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(LSGError) as error:
        read_config({"model_type": "bert", **config})[1]
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_masked_lm_head_with_another_activation_than_the_layers(tmp_path: Path) -> None:
    """RoBERTa's head applies gelu whatever hidden_act says; without the head there is nothing to differ."""
    head = write_hf_folder(build_hf_model("roberta", "RobertaForMaskedLM", hidden_act="relu"), tmp_path / "head")
    with pytest.raises(LSGError, match="always applies gelu and its layers relu"):
        convert_checkpoint(head, tmp_path / "out")
    bare = write_hf_folder(build_hf_model("roberta", "RobertaModel", hidden_act="relu"), tmp_path / "bare")
    assert convert_checkpoint(bare, tmp_path / "out", POSITIONS).args["activation_fn"] == "relu"


def test_target_positions_are_refused(tmp_path: Path) -> None:
    source = write_hf_folder(build_hf_model("bert", "BertModel"), tmp_path / "hf")
    with pytest.raises(LSGError, match="is an encoder-only model: leave --max-target-positions out"):
        convert_checkpoint(source, tmp_path / "out", 64, 64)


def test_tokenizer_of_another_vocabulary(tmp_path: Path) -> None:
    source = write_hf_folder(build_hf_model("bert", "BertModel"), tmp_path / "hf")
    lines = (source / "vocab.txt").read_text()
    (source / "vocab.txt").write_text(lines + "more\n")
    with pytest.raises(LSGError, match="has 18 embedding rows and its tokenizer 19 tokens"):
        convert_checkpoint(source, tmp_path / "out")
    (source / "vocab.txt").write_text(lines.replace("[PAD]", "[unused9]"))
    with pytest.raises(LSGError, match="no token for padding"):
        convert_checkpoint(source, tmp_path / "out")


def test_cut_weights_do_not_fit(tmp_path: Path) -> None:
    source = write_hf_folder(build_hf_model("bert", "BertModel"), tmp_path / "hf")
    tensors = load_file(source / "model.safetensors")
    tensors["embeddings.position_embeddings.weight"] = tensors["embeddings.position_embeddings.weight"][:-1].clone()
    rewrite_tensors(source, tensors)
    with pytest.raises(LSGError, match=r"position_embeddings\.weight is \[39, 16\] and not \[40, 16\]"):
        convert_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokenizer_can_be_given_apart(tmp_path: Path) -> None:
    model = build_hf_model("bert", "BertModel")
    model.save_pretrained(tmp_path / "hf")
    (tmp_path / "tokenizer").mkdir()
    write_tokenizer("bert", tmp_path / "tokenizer")
    convert_checkpoint(tmp_path / "hf", tmp_path / "out", POSITIONS, tokenizer=tmp_path / "tokenizer")
    assert (tmp_path / "out" / "tokenizer" / "vocab.txt").is_file()
