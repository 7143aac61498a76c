"""The name of every tensor of BERT-like encoders, in Hugging Face and in fairseq, and the heads that they make up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.state_dicts import HEAD_NAME, KeyPair, only_head
from lsg_fairseq.weights.upgrades import LM_HEAD

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


# --- which heads a state dict has, in Hugging Face's names and in fairseq's.

# fairseq heads that hold what Hugging Face has without a classifier.
POOLER, NEXT_SENTENCE = "classification_heads.pooler.", "classification_heads.next_sentence."
# TensorFlow's names of a layer norm's weight and bias, which the oldest files have.
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}
# fairseq has no counterpart of ELECTRA's discriminator, which says of each token whether it was replaced.
NOT_CARRIED = ("discriminator_predictions.",)
HEAD_NOTES = {
    "pooler": "the pooler is kept as the classification head 'pooler', with the identity as its output layer",
    "nsp": "the pooler and next-sentence prediction are kept as the classification head 'next_sentence'",
    "bert classes": f"the pooler is kept as the first layer of the classification head {HEAD_NAME!r}",
}


def full_names(names: Iterable[str], layout: KeyLayout) -> dict[str, str]:
    """A checkpoint's own names -> today's, with the model's prefix, which checkpoints without a head lack."""
    names = list(names)
    is_bare = not any(name.startswith(f"{layout.prefix}.") for name in names)
    parts = ("embeddings.", "pooler.", layout.layer_names)
    full = {}
    for name in names:
        old = next((old for old in OLD_NAMES if name.endswith(old)), "")
        today = name.removesuffix(old) + OLD_NAMES.get(old, "")
        full[name] = f"{layout.prefix}.{today}" if is_bare and name.startswith(parts) else today
    return full


def parts_of_hf(names: Iterable[str], layout: KeyLayout) -> frozenset[str]:
    """The tags of ENCODER_KEY_TABLE for the heads that tensors of these names make up."""
    full = list(full_names(names, layout).values())

    def has(*starts: str) -> bool:
        return any(name.startswith(starts) for name in full)

    parts = {layout.lm} if has(*layout.lm_starts) else set()
    if has("classifier.", "pre_classifier."):
        parts.add(layout.classes)
    if "bert classes" not in parts:  # whose first layer is the pooler
        if has("cls.seq_relationship."):
            parts.add("nsp")
        elif has(f"{layout.prefix}.pooler."):
            parts.add("pooler")
    return frozenset(parts)


def split_heads(state: Mapping[str, Tensor], layout: KeyLayout) -> tuple[dict[str, Tensor], frozenset[str], str | None]:
    """Take the identity behind a pooler out of a fairseq state dict.

    Returns:
        the state dict, the tags of its heads, and the name of its classifier, None where it has none.

    Raises:
        LSGError: there is more than one classifier, or two heads need BERT's one pooler.
    """
    state = dict(state)
    parts = {layout.lm} if any(key.startswith(LM_HEAD) for key in state) else set()
    if layout.has_pooler and _is_plain_pooler(state):
        parts.add("pooler")
        for key in identity_behind_pooler(state[POOLER + "dense.weight"]):
            del state[key]
    if layout.has_next_sentence and len(state.get(NEXT_SENTENCE + "out_proj.bias", ())) == 2:
        parts.add("nsp")
    special = tuple(start for start, tag in ((POOLER, "pooler"), (NEXT_SENTENCE, "nsp")) if tag in parts)
    head = only_head(key for key in state if not key.startswith(special))
    if head:
        parts.add(layout.classes)
    if len(parts & {"bert classes", "pooler", "nsp"}) > 1:
        names = sorted({key.split(".")[1] for key in state if key.startswith("classification_heads.")})
        raise LSGError(
            f"a Hugging Face BERT has one pooler, and {len(names)} classification heads need it ({', '.join(names)}): "
            "remove all but one"
        )
    return state, frozenset(parts), head


def identity_behind_pooler(weight: Tensor) -> dict[str, Tensor]:
    """The output layer that makes a classification head of a pooler [C, C] without changing a digit."""
    size = len(weight)
    return {POOLER + "out_proj.weight": torch.eye(size).to(weight), POOLER + "out_proj.bias": weight.new_zeros(size)}


def _is_plain_pooler(state: Mapping[str, Tensor]) -> bool:
    weight = state.get(POOLER + "dense.weight")
    if weight is None:
        return False
    return all(key in state and torch.equal(state[key], t) for key, t in identity_behind_pooler(weight).items())


def encoder_notes(tensors: Mapping[str, Tensor], spec: ModelSpec) -> list[str]:
    """One sentence for each part that changes its place, is missing, or is left behind."""
    layout = key_layout_of(spec)
    names, parts = full_names(tensors, layout), parts_of_hf(tensors, layout)
    notes = [note for part, note in HEAD_NOTES.items() if part in parts]
    if layout.lm not in parts:
        notes.append("there is no masked-LM head: a model that is loaded gets an untrained one")
    types = next(
        (tensors[name] for name, full in names.items() if full.endswith(".token_type_embeddings.weight")), None
    )
    if types is not None and types[0].any():
        notes.append("the embedding of token type 0 is added to the positions, as fairseq has no token types")
    if spec.token_types > 1:
        notes.append(f"token types other than 0 are not carried ({spec.token_types - 1} of {spec.token_types} rows)")
    lost = sorted(name for name in tensors if name.startswith(NOT_CARRIED))
    if lost:
        notes.append(f"the discriminator's own head has no counterpart and is not carried: {', '.join(lost)}")
    return notes
