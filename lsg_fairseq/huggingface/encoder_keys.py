"""The name of every tensor of BERT-like encoders, in Hugging Face and in fairseq's RoBERTa, as one table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.state_dicts import KeyPair

# Read in both directions. A name that ends with .* stands for a weight of this shape and a bias of its first size.
# {b}: bert, roberta, electra or distilbert; {h}, {f}: layer N in Hugging Face and in fairseq; {s}: fairseq's encoder;
# {head}: the head's name. Shapes: V vocabulary, C model size, E feed-forward size, S position rows (BERT, ELECTRA and
# DistilBERT lack fairseq's two offset rows), Y token types, G global rows; I, K: whatever the head has.
# Last column: the tag of the models that have the key; KEY_LAYOUTS says which tags go with a model_type.
# fmt: off
ENCODER_KEY_TABLE: tuple[tuple[str, str, str, str], ...] = (
    # Hugging Face                                  fairseq                                   shape  tag
    ("{b}.embeddings.word_embeddings.weight",       "{s}.embed_tokens.weight",                "V C", "all"),
    ("{b}.embeddings.position_embeddings.weight",   "{s}.embed_positions.weight",             "S C", "all"),
    ("{b}.embeddings.token_type_embeddings.weight", "{s}.token_types.weight",                 "Y C", "token types"),
    ("{b}.embeddings.global_embeddings.weight",     "{s}.global_embeddings.weight",           "G C", "lsg"),
    ("{b}.embeddings.LayerNorm.*",                  "{s}.layernorm_embedding.*",              "C",   "all"),
    ("{h}.attention.self.query.*",                  "{f}.self_attn.q_proj.*",                 "C C", "bert layers"),
    ("{h}.attention.self.key.*",                    "{f}.self_attn.k_proj.*",                 "C C", "bert layers"),
    ("{h}.attention.self.value.*",                  "{f}.self_attn.v_proj.*",                 "C C", "bert layers"),
    ("{h}.attention.output.dense.*",                "{f}.self_attn.out_proj.*",               "C C", "bert layers"),
    ("{h}.attention.output.LayerNorm.*",            "{f}.self_attn_layer_norm.*",             "C",   "bert layers"),
    ("{h}.intermediate.dense.*",                    "{f}.fc1.*",                              "E C", "bert layers"),
    ("{h}.output.dense.*",                          "{f}.fc2.*",                              "C E", "bert layers"),
    ("{h}.output.LayerNorm.*",                      "{f}.final_layer_norm.*",                 "C",   "bert layers"),
    ("{h}.attention.q_lin.*",                       "{f}.self_attn.q_proj.*",                 "C C", "distil layers"),
    ("{h}.attention.k_lin.*",                       "{f}.self_attn.k_proj.*",                 "C C", "distil layers"),
    ("{h}.attention.v_lin.*",                       "{f}.self_attn.v_proj.*",                 "C C", "distil layers"),
    ("{h}.attention.out_lin.*",                     "{f}.self_attn.out_proj.*",               "C C", "distil layers"),
    ("{h}.sa_layer_norm.*",                         "{f}.self_attn_layer_norm.*",             "C",   "distil layers"),
    ("{h}.ffn.lin1.*",                              "{f}.fc1.*",                              "E C", "distil layers"),
    ("{h}.ffn.lin2.*",                              "{f}.fc2.*",                              "C E", "distil layers"),
    ("{h}.output_layer_norm.*",                     "{f}.final_layer_norm.*",                 "C",   "distil layers"),
    ("cls.predictions.transform.dense.*",           "encoder.lm_head.dense.*",                "C C", "bert lm"),
    ("cls.predictions.transform.LayerNorm.*",       "encoder.lm_head.layer_norm.*",           "C",   "bert lm"),
    ("cls.predictions.bias",                        "encoder.lm_head.bias",                   "V",   "bert lm"),
    ("lm_head.dense.*",                             "encoder.lm_head.dense.*",                "C C", "roberta lm"),
    ("lm_head.layer_norm.*",                        "encoder.lm_head.layer_norm.*",           "C",   "roberta lm"),
    ("lm_head.bias",                                "encoder.lm_head.bias",                   "V",   "roberta lm"),
    ("generator_predictions.dense.*",               "encoder.lm_head.dense.*",                "C C", "electra lm"),
    ("generator_predictions.LayerNorm.*",           "encoder.lm_head.layer_norm.*",           "C",   "electra lm"),
    ("generator_lm_head.bias",                      "encoder.lm_head.bias",                   "V",   "electra lm"),
    ("vocab_transform.*",                           "encoder.lm_head.dense.*",                "C C", "distil lm"),
    ("vocab_layer_norm.*",                          "encoder.lm_head.layer_norm.*",           "C",   "distil lm"),
    ("vocab_projector.bias",                        "encoder.lm_head.bias",                   "V",   "distil lm"),
    ("{b}.pooler.dense.*",                          "classification_heads.{head}.dense.*",    "C C", "bert classes"),
    ("classifier.*",                                "classification_heads.{head}.out_proj.*", "K C", "bert classes"),
    ("classifier.dense.*",                          "classification_heads.{head}.dense.*",    "I C", "roberta classes"),
    ("classifier.out_proj.*",                       "classification_heads.{head}.out_proj.*", "K I", "roberta classes"),
    ("pre_classifier.*",                            "classification_heads.{head}.dense.*",    "C C", "distil classes"),
    ("classifier.*",                                "classification_heads.{head}.out_proj.*", "K C", "distil classes"),
    # A pooler without a classifier is a head too: what comes behind it is the identity, kept on fairseq's side alone.
    ("{b}.pooler.dense.*",                          "classification_heads.pooler.dense.*",    "C C", "pooler"),
    ("{b}.pooler.dense.*",                          "classification_heads.next_sentence.dense.*", "C C", "nsp"),
    ("cls.seq_relationship.*",                      "classification_heads.next_sentence.out_proj.*", "2 C", "nsp"),
)
# fmt: on


@dataclass(frozen=True)
class KeyLayout:
    """How one model_type of Hugging Face names its parts.

    `layers`, `lm` and `classes` are the tags of its layers, masked-LM head and classification head; `lm_starts` what
    the names of the second start with, `tied` its copy of the token embeddings. `has_pooler` and `has_next_sentence`
    say whether transformers has models with a pooler, or next-sentence prediction, and no classifier. `copies` are
    tensors that may be there beside the first name given, or instead of it.
    """

    prefix: str
    layer_names: str
    layers: str
    lm: str
    classes: str
    lm_starts: tuple[str, ...]
    tied: str
    has_pooler: bool = False
    has_next_sentence: bool = False
    copies: tuple[tuple[str, str], ...] = ()


BERT = KeyLayout(
    prefix="bert",
    layer_names="encoder.layer",
    layers="bert layers",
    lm="bert lm",
    classes="bert classes",
    lm_starts=("cls.predictions.",),
    tied="cls.predictions.decoder.weight",
    has_pooler=True,
    has_next_sentence=True,
    copies=(("cls.predictions.bias", "cls.predictions.decoder.bias"),),
)
ROBERTA = KeyLayout(
    prefix="roberta",
    layer_names="encoder.layer",
    layers="bert layers",
    lm="roberta lm",
    classes="roberta classes",
    lm_starts=("lm_head.",),
    tied="lm_head.decoder.weight",
    has_pooler=True,
    copies=(("lm_head.bias", "lm_head.decoder.bias"),),
)
ELECTRA = KeyLayout(
    prefix="electra",
    layer_names="encoder.layer",
    layers="bert layers",
    lm="electra lm",
    classes="roberta classes",
    lm_starts=("generator_predictions.", "generator_lm_head."),
    tied="generator_lm_head.weight",
)
DISTILBERT = KeyLayout(
    prefix="distilbert",
    layer_names="transformer.layer",
    layers="distil layers",
    lm="distil lm",
    classes="distil classes",
    lm_starts=("vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
    tied="vocab_projector.weight",
)
KEY_LAYOUTS = {"bert": BERT, "roberta": ROBERTA, "electra": ELECTRA, "distilbert": DISTILBERT}


def key_layout_of(spec: ModelSpec) -> KeyLayout:
    """The names that a model_type has; CamemBERT's and XLM-R's are RoBERTa's."""
    return KEY_LAYOUTS[spec.kind.keys]


def encoder_key_pairs(spec: ModelSpec, parts: frozenset[str], head: str | None = None) -> Iterator[KeyPair]:
    """Spell ENCODER_KEY_TABLE out for one model.

    Args:
        parts: tags of the heads that it has.
        head: the name of its classification head, None where it has none.
    """
    layout = key_layout_of(spec)
    present = {"all", layout.layers, *parts}
    present |= {tag for tag, there in (("lsg", spec.is_lsg), ("token types", spec.token_types)) if there}
    for hf, fairseq, shape, tag in ENCODER_KEY_TABLE:
        if tag not in present:
            continue
        for n in range(spec.encoder_layers if "{h}" in hf else 1):
            names = {"b": layout.prefix, "h": f"{layout.prefix}.{layout.layer_names}.{n}", "head": head}
            names |= {"s": "encoder.sentence_encoder", "f": f"encoder.sentence_encoder.layers.{n}"}
            yield from _weight_and_bias(hf.format(**names), fairseq.format(**names), tuple(shape.split()))


def _weight_and_bias(hf: str, fairseq: str, shape: tuple[str, ...]) -> Iterator[KeyPair]:
    if not hf.endswith(".*"):
        yield KeyPair(hf, fairseq, shape)
        return
    for name, its_shape in (("weight", shape), ("bias", shape[:1])):
        yield KeyPair(hf[:-1] + name, fairseq[:-1] + name, its_shape)
