"""The configurations of public checkpoints as tiny models: what they say in config.json, with small sizes.

What a field says (activation, scaling, norms, forced tokens, beams, penalties, labels, which tensors there are, rows
without tokens, LSG settings) is the checkpoint's own; widths, layers, words and lengths of outputs are made small, and
positions stay what they are. Sources: the config.json of the hub's ids in TABLE; for Pegasus also the table of
task_specific_params in transformers 4.2's configuration_pegasus.py, and for LSG the model cards.

Weights follow from a seed, so that outputs alone need to be stored: benchmarks/make_public_reference.py stores them,
and tests/test_public_configurations.py matches them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WIDTH, HEADS, FFN, LAYERS = 16, 2, 24, 2
# Lengths of outputs are a sixth of the published ones, rounded up.
SHORTER = 6
LENGTHS = ("max_length", "min_length")
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
WORDPIECES = "[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] the cat sat on a mat and ran ! ##s ##ing un".split()
# The pieces of each sentencepiece model that is stored with the references.
PIECES = {"pegasus": 34, "xlm-roberta": 34, "camembert": 34}


class Public(NamedTuple):
    """A published checkpoint.

    `tokenizer` is a kind of files; `config` what its config.json says. `old_names` are those that its tensors have on
    the hub, each with transformers' own: the first BERTs' gamma and beta, and no prefix where a base model was saved.
    """

    tokenizer: str
    config: dict[str, Any]
    old_names: tuple[tuple[str, str], ...] = ()


def _labels(*names: str) -> dict[str, Any]:
    return {"id2label": {str(i): n for i, n in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)}}


THREE_LABELS = _labels("LABEL_0", "LABEL_1", "LABEL_2")
SUMMARIES_OF_NEWS = {"early_stopping": True, "length_penalty": 2.0, "max_length": 142, "min_length": 56}
SUMMARIES_OF_NEWS |= {"no_repeat_ngram_size": 3, "num_beams": 4}
# BART's pretrained checkpoints also say how they would summarise, by name of the task.
BART_TASKS = {
    "summarization": {"length_penalty": 1.0, "max_length": 128, "min_length": 12, "num_beams": 4},
    "summarization_cnn": {"length_penalty": 2.0, "max_length": 142, "min_length": 56, "num_beams": 4},
    "summarization_xsum": {"length_penalty": 1.0, "max_length": 62, "min_length": 11, "num_beams": 6},
}
_BART = {
    "model_type": "bart",
    **{"activation_dropout": 0.0, "activation_function": "gelu", "add_bias_logits": False, "attention_dropout": 0.0},
    **{"add_final_layer_norm": False, "bos_token_id": 0, "classif_dropout": 0.0, "classifier_dropout": 0.0},
    **{"decoder_layerdrop": 0.0, "decoder_start_token_id": 2, "dropout": 0.1, "encoder_layerdrop": 0.0},
    **{"eos_token_id": 2, "forced_eos_token_id": 2, "gradient_checkpointing": False, **THREE_LABELS, "init_std": 0.02},
    **{"is_encoder_decoder": True, "max_position_embeddings": 1024, "normalize_before": False, "pad_token_id": 1},
    **{"scale_embedding": False, "use_cache": True},
}
_PRETRAINED = {
    **_BART,
    **{"activation_dropout": 0.1, "architectures": ["BartModel"], "attention_dropout": 0.1, "classif_dropout": 0.1},
    **{"early_stopping": True, "forced_bos_token_id": 0, "no_repeat_ngram_size": 3, "normalize_embedding": True},
    **{"num_beams": 4, "task_specific_params": BART_TASKS, "torch_dtype": "float32"},
}
_SUMMARIZER = {**_BART, "_num_labels": 3, "architectures": ["BartForConditionalGeneration"], "output_past": True}
_SUMMARIZER |= {"early_stopping": True, "no_repeat_ngram_size": 3, "prefix": " ", "vocab_size": "without <mask>"}
_CNN = {**_SUMMARIZER, **SUMMARIES_OF_NEWS, "force_bos_token_to_be_generated": True, "forced_bos_token_id": 0}
_CNN |= {"task_specific_params": {"summarization": SUMMARIES_OF_NEWS}}
_OLD_FIELDS = {"extra_pos_embeddings": 2, "replacing_rate": 0, "static_position_embeddings": False}
_OLD_FIELDS |= {"student_decoder_layers": None, "student_encoder_layers": None, "normalize_embedding": True}
_PEGASUS = {
    "model_type": "pegasus",
    **{"activation_dropout": 0.1, "activation_function": "relu", "add_bias_logits": False, "attention_dropout": 0.1},
    **{"add_final_layer_norm": True, "architectures": ["PegasusForConditionalGeneration"], "bos_token_id": 0},
    **{"classif_dropout": 0.0, "classifier_dropout": 0.0, "decoder_layerdrop": 0.0, "decoder_start_token_id": 0},
    **{"dropout": 0.1, "encoder_layerdrop": 0.0, "eos_token_id": 1, "extra_pos_embeddings": 1, **THREE_LABELS},
    **{"forced_eos_token_id": 1, "gradient_checkpointing": False, "init_std": 0.02, "is_encoder_decoder": True},
    **{"length_penalty": 0.8, "max_length": 256, "max_position_embeddings": 1024, "normalize_before": True},
    **{"normalize_embedding": False, "num_beams": 8, "pad_token_id": 0, "scale_embedding": True},
    **{"static_position_embeddings": True, "use_cache": True},
}
_BERT = {
    "model_type": "bert",
    **{"attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False, "hidden_act": "gelu"},
    **{"hidden_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "max_position_embeddings": 512},
    **{"pad_token_id": 0, "position_embedding_type": "absolute", "type_vocab_size": 2, "use_cache": True},
}
_ROBERTA = {
    **_BERT,
    **{"model_type": "roberta", "architectures": ["RobertaForMaskedLM"], "bos_token_id": 0, "eos_token_id": 2},
    **{"layer_norm_eps": 1e-05, "max_position_embeddings": 514, "pad_token_id": 1, "type_vocab_size": 1},
}
_LSG = {
    **{"adaptive": True, "base_model_prefix": "lsg", "block_size": 128, "lsh_num_pre_rounds": 1},
    **{"mask_first_token": False, "num_global_tokens": 1, "pass_global_tokens_to_decoder": True},
    **{"pool_with_global": True, "sparse_block_size": 128, "sparsity_factor": 2, "sparsity_type": "norm"},
}
_LSG_BART = {**_PRETRAINED, **_LSG, "architectures": ["LSGBartForConditionalGeneration"], "_num_labels": 3}
_LSG_BART |= {"max_position_embeddings": 4096}
# As the cards of the models that were fine-tuned from it have it: 64 global tokens, blocks of 256, no sparse tokens.
_16384 = {"block_size": 256, "max_position_embeddings": 16384, "num_global_tokens": 64, "sparse_block_size": 0}
_16384 |= {"sparsity_factor": 4, "sparsity_type": "none"}
_OF_BASE_MODEL = (("model.", ""),)

TABLE: dict[str, Public] = {
    "facebook/bart-base": Public("bart", _PRETRAINED, _OF_BASE_MODEL),
    "facebook/bart-large": Public("bart", _PRETRAINED, _OF_BASE_MODEL),
    "facebook/bart-large-cnn": Public("bart", _CNN),
    "facebook/bart-large-xsum": Public(
        "bart", {**_SUMMARIZER, **_OLD_FIELDS, "max_length": 62, "min_length": 11, "num_beams": 6}
    ),
    "facebook/bart-large-mnli": Public(
        "bart",
        {
            **_BART,
            **{"architectures": ["BartForSequenceClassification"], "_num_labels": 3, "output_past": False},
            **_labels("contradiction", "neutral", "entailment"),
        },
    ),
    "sshleifer/distilbart-cnn-12-6": Public("bart", {**_CNN, **_OLD_FIELDS, "encoder_layers": 3, "decoder_layers": 1}),
    "google/pegasus-large": Public("pegasus", _PEGASUS),
    "google/pegasus-xsum": Public(
        "pegasus", {**_PEGASUS, "length_penalty": 0.6, "max_length": 64, "max_position_embeddings": 512}
    ),
    "google/pegasus-cnn_dailymail": Public("pegasus", {**_PEGASUS, "max_length": 128, "min_length": 32}),
    "google/pegasus-arxiv": Public("pegasus", _PEGASUS),
    "ccdv/lsg-bart-base-4096": Public("bart", _LSG_BART),
    "ccdv/lsg-bart-base-16384": Public("bart", {**_LSG_BART, **_16384}),
    "ccdv/lsg-pegasus-large-4096": Public(
        "pegasus",
        {
            **{**_PEGASUS, **_LSG, "architectures": ["LSGPegasusForConditionalGeneration"]},
            "max_position_embeddings": 4096,
        },
    ),
    "google-bert/bert-base-uncased": Public(
        "bert",
        {**_BERT, "architectures": ["BertForMaskedLM"]},
        (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")),
    ),
    "FacebookAI/roberta-base": Public("bart", _ROBERTA),
    "almanach/camembert-base": Public(
        "camembert",
        {
            **{**_ROBERTA, "architectures": ["CamembertForMaskedLM"], "model_type": "camembert", "output_past": True},
            **{"bos_token_id": 5, "eos_token_id": 6},
        },
    ),
    "FacebookAI/xlm-roberta-base": Public(
        "xlm-roberta",
        {**_ROBERTA, "architectures": ["XLMRobertaForMaskedLM"], "model_type": "xlm-roberta", "output_past": True},
    ),
    "intfloat/multilingual-e5-small": Public(
        "xlm-roberta",
        {
            **{**_BERT, "architectures": ["BertModel"], "tokenizer_class": "XLMRobertaTokenizer"},
            "vocab_size": "with 35 rows more",
        },
        (("bert.", ""),),
    ),
}


def count_tokens(tokenizer: str) -> int:
    """How many tokens a tokenizer of this kind has."""
    if tokenizer == "bart":
        return 4 + 256 + 1  # specials, bytes, <mask>
    more = {"pegasus": 103, "xlm-roberta": 2, "camembert": 5}
    return len(WORDPIECES) if tokenizer == "bert" else PIECES[tokenizer] + more[tokenizer]


def tiny_config(name: str) -> dict[str, Any]:
    """config.json of a tiny model like a published one."""
    public = TABLE[name]
    config = _shortened(public.config)
    rows = {"without <mask>": -1, "with 35 rows more": 35}.get(public.config.get("vocab_size"), 0)
    sizes: dict[str, int] = {"vocab_size": count_tokens(public.tokenizer) + rows}
    if config.get("is_encoder_decoder"):
        sides = ("encoder", "decoder")
        sizes |= {"d_model": WIDTH, "num_hidden_layers": config.get("encoder_layers", LAYERS)}
        for side in sides:
            sizes |= {f"{side}_attention_heads": HEADS, f"{side}_ffn_dim": FFN}
            sizes[f"{side}_layers"] = config.get(f"{side}_layers", LAYERS)
    else:
        sizes |= {"hidden_size": WIDTH, "num_hidden_layers": LAYERS}
        sizes |= {"num_attention_heads": HEADS, "intermediate_size": FFN}
    return {**config, **sizes}


def _shortened(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with shorter outputs, those of its tasks included."""
    result = dict(config)
    for name, value in config.items():
        if name in LENGTHS:
            result[name] = -(-value // SHORTER)
        elif name == "task_specific_params":
            result[name] = {task: _shortened(params) for task, params in value.items()}
    return result


def make_tensors(name: str, shapes: Mapping[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights far from 0 and 1, a layer norm's around 1, Pegasus' positions as they are computed.

    RandomState's stream never changes (numpy's compatibility policy), so they are the same everywhere.
    """
    state = np.random.RandomState(zlib.crc32(name.encode()))
    fixed = bool(TABLE[name].config.get("static_position_embeddings"))
    tensors = {}
    for key in sorted(shapes):
        shape = tuple(shapes[key])
        drawn = state.standard_normal(shape).astype(np.float32)
        is_norm = key.lower().replace("_", "").endswith(("layernorm.weight", "layernormembedding.weight"))
        scaled = np.float32(0.3 if len(shape) == 2 else 0.2) * drawn + np.float32(is_norm)
        if key.endswith(("shared.weight", "word_embeddings.weight")):
            scaled[TABLE[name].config["pad_token_id"]] = 0  # as transformers leaves it: no model says <pad>
        tensors[key] = make_sinusoids(*shape) if fixed and "embed_positions" in key else scaled
    return tensors


def make_sinusoids(length: int, width: int) -> np.ndarray:
    """Pegasus' position table (length, width): sines in the first half of each row, cosines in the second."""
    angles = np.arange(length)[:, None] / np.power(10000, 2 * (np.arange(width // 2)) / width)[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def published_names(name: str, keys: list[str]) -> dict[str, str]:
    """transformers' name of each tensor, and the one that the hub's file has."""
    renamed = {}
    for key in keys:
        published = key
        for own, old in TABLE[name].old_names:
            published = published.replace(own, old)
        renamed[key] = published
    return renamed


def write_tokenizer(tokenizer: str, folder: Path, models: Path) -> None:
    """The tokenizer files that a repository on the hub has; `models` holds the sentencepiece models."""
    if tokenizer == "bart":
        alphabet = [chr(b) for b in BYTES] + [chr(256 + i) for i in range(256 - len(BYTES))]
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(alphabet), "<mask>"]
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
    elif tokenizer == "bert":
        (folder / "vocab.txt").write_text("\n".join(WORDPIECES) + "\n")
    else:
        file = "spiece.model" if tokenizer == "pegasus" else "sentencepiece.bpe.model"
        (folder / file).write_bytes((models / f"{tokenizer}.model").read_bytes())
