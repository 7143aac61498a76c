"""One row per model family: the rest of the package reads the row and never asks for a family by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from fairseq.models import ARCH_MODEL_REGISTRY

from lsg_fairseq.modules.lsg_config import LSGError

# Who published LSG checkpoints and their modelling files on the Hugging Face hub.
PUBLISHER = "ccdv"
# transformers' auto classes, and how the class of a model that each of them finds ends.
CLASSIFIER = {"AutoModelForSequenceClassification": "ForSequenceClassification"}
SEQ2SEQ_CLASSES = {"AutoConfig": "Config", "AutoModel": "Model", "AutoModelForSeq2SeqLM": "ForConditionalGeneration"}
ENCODER_CLASSES = {"AutoConfig": "Config", "AutoModel": "Model", "AutoModelForMaskedLM": "ForMaskedLM"} | CLASSIFIER


def _sizes(side: str, embed_dim: int, layers: int, ffn_embed_dim: int, attention_heads: int) -> dict[str, int]:
    """By fairseq's names."""
    names = ("embed_dim", "layers", "ffn_embed_dim", "attention_heads")
    return {f"{side}_{n}": v for n, v in zip(names, (embed_dim, layers, ffn_embed_dim, attention_heads), strict=True)}


# What transformers' configuration classes assume where config.json says nothing.
SEQ2SEQ_SIZES = _sizes("encoder", 1024, 12, 4096, 16) | _sizes("decoder", 1024, 12, 4096, 16)
ENCODER_SIZES, ELECTRA_SIZES = _sizes("encoder", 768, 12, 3072, 12), _sizes("encoder", 256, 12, 1024, 4)


def _start_and_end(start: int, end: int) -> dict[str, int]:
    return {"decoder_start_token_id": start, "forced_eos_token_id": end}


@dataclass(frozen=True)
class ModelType:
    """One model_type of Hugging Face.

    `keys` and `config` name the tables of huggingface/ for its tensors and its config.json. `remote_code` is where the
    publisher keeps the modelling file of its LSG version (trust_remote_code=True), "" where there is none.
    `sizes`, `vocab_size` and `embedding_size` (None: no such field) are what transformers assumes.

    For encoders: `position_offset` counts the rows that Hugging Face has in front of position 0, `token_types` the rows
    of its token type table; `head_activation` is what its classification head applies, `lm_activation` its masked-LM
    head whatever hidden_act says (None: hidden_act).
    """

    name: str
    class_name: str
    remote_code: str = ""
    keys: str = ""
    config: str = ""
    auto_classes: Mapping[str, str] = field(default_factory=lambda: ENCODER_CLASSES)
    sizes: Mapping[str, int] = field(default_factory=lambda: ENCODER_SIZES)
    vocab_size: int = 30522
    embedding_size: int | None = None
    position_offset: int = 0
    token_types: int = 0
    head_activation: str = "tanh"
    lm_activation: str | None = None

    @property
    def auto_map(self) -> dict[str, str]:
        """The auto_map of an exported LSG model's config.json."""
        prefix = f"{PUBLISHER}/{self.remote_code}.LSG{self.class_name}"
        return {auto: prefix + name for auto, name in self.auto_classes.items()} if self.remote_code else {}


@dataclass(frozen=True)
class Family:
    """One architecture and its vocabulary.

    `arch` is the architecture that a converted model names (its sizes are spelled out beside it); `stock` fairseq's own
    architectures of the family, and the LSG ones of the same defaults. `title` and `members` are what torch.hub.help
    calls it and the checkpoints that belong to it, `entries` the hub entries that load them.

    Layers: `pre_norm` puts layer norms in front of the sublayers, and one behind the last layer; `embedding_norm` is
    one behind the embeddings. Learned positions have fairseq's two offset rows (they started at padding_idx + 1).

    `token_ids` are what transformers' configuration class assumes; an export of an encoder takes the tokenizer's.
    `bos` says whether `<s>` starts a sequence, `doubled_separator` whether two `</s>` stand between the two texts of a
    pair instead of one, `decoder_start` what the decoder starts from. `tokenizer_class` is the
    beginning of a class of transformers whose tokenizers are this family's alone, "" for none. `has_languages`:
    tokenizers with language codes (tokenizers/languages.py) may belong to it.
    """

    name: str
    title: str
    members: str
    entries: str
    arch: str
    types: tuple[ModelType, ...]
    token_ids: Mapping[str, int]
    stock: Mapping[str, str] = field(default_factory=dict)
    has_decoder: bool = True
    has_classifier: bool = True
    pre_norm: bool = False
    embedding_norm: bool = True
    learned_positions: bool = True
    globals_have_token_type: bool = False
    bos: bool = True
    doubled_separator: bool = False
    decoder_start: str = "</s>"
    tokenizer_class: str = ""
    has_languages: bool = False

    @property
    def position_offset(self) -> int:
        """fairseq's rows in front of position 0."""
        return 2 if self.learned_positions else 0

    @property
    def key_tags(self) -> frozenset[str]:
        """Which rows of the key tables the family has, beside those that all have."""
        tags = {"final_norm": self.pre_norm, "embed_norm": self.embedding_norm}
        return frozenset(tag for tag, has in tags.items() if has)

    @property
    def layout(self) -> dict[str, bool]:
        """fairseq's model arguments that say how an encoder-decoder's layers are put together."""
        return {
            "encoder_normalize_before": self.pre_norm,
            "decoder_normalize_before": self.pre_norm,
            "encoder_learned_pos": self.learned_positions,
            "decoder_learned_pos": self.learned_positions,
            "layernorm_embedding": self.embedding_norm,
            "share_decoder_input_output_embed": True,
            "share_all_embeddings": True,
        }

    @property
    def hf_layout(self) -> dict[str, bool]:
        """The same in older config.json files; today's transformers ignores these fields."""
        return {
            "normalize_before": self.pre_norm,
            "add_final_layer_norm": self.pre_norm,
            "normalize_embedding": self.embedding_norm,
            "static_position_embeddings": not self.learned_positions,
        }


# The model types of Hugging Face; what stands for all of a kind is said once.
_seq2seq = functools.partial(ModelType, keys="seq2seq", config="seq2seq", sizes=SEQ2SEQ_SIZES, vocab_size=50265)
_bert = functools.partial(ModelType, keys="bert", config="bert", token_types=2)
_roberta = functools.partial(_bert, keys="roberta", position_offset=2, lm_activation="gelu")

BART = Family(
    name="bart",
    title="BART",
    members="BART",
    entries="lsg_bart_base or lsg_bart_large",
    arch="lsg_bart_large",
    stock={"bart_large": "lsg_bart_large", "bart_base": "lsg_bart_base"},
    types=(
        _seq2seq("bart", "Bart", "lsg-bart-base-4096--modeling_lsg_bart", auto_classes=SEQ2SEQ_CLASSES | CLASSIFIER),
    ),
    token_ids={"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, **_start_and_end(2, 2)},
)
PEGASUS = Family(
    name="pegasus",
    title="Pegasus",
    members="Pegasus",
    entries="lsg_pegasus_large",
    arch="lsg_pegasus_large",
    types=(
        _seq2seq("pegasus", "Pegasus", "lsg-pegasus-large-4096--modeling_lsg_pegasus", auto_classes=SEQ2SEQ_CLASSES),
    ),
    token_ids={"pad_token_id": 0, "eos_token_id": 1, **_start_and_end(0, 1)},
    has_classifier=False,
    pre_norm=True,
    embedding_norm=False,
    learned_positions=False,
    bos=False,
    decoder_start="<s>",  # Hugging Face's <pad>
    tokenizer_class="Pegasus",
)
MBART = Family(
    name="mbart",
    title="mBART",
    members="mBART, mBART-50 or BARThez",
    entries="lsg_barthez",
    arch="lsg_mbart_large",
    stock={"mbart_large": "lsg_mbart_large", "mbart_base": "lsg_mbart_base"},
    types=(
        _seq2seq("mbart", "MBart", "lsg-barthez-4096--modeling_lsg_barthez", auto_classes=SEQ2SEQ_CLASSES | CLASSIFIER),
    ),
    token_ids={"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, **_start_and_end(2, 2)},
    pre_norm=True,
    has_languages=True,
)
ROBERTA = Family(
    name="roberta",
    title="RoBERTa",
    members="RoBERTa, CamemBERT or XLM-RoBERTa",
    entries="lsg_roberta_base",
    arch="lsg_roberta_base",
    stock={"roberta_large": "lsg_roberta_large", "roberta_base": "lsg_roberta_base"},
    types=(
        _roberta("roberta", "Roberta", "lsg-distilroberta-base-4096--modeling_lsg_roberta", vocab_size=50265),
        _roberta("camembert", "Camembert", "lsg-camembert-base-4096--modeling_lsg_camembert"),
        _roberta("xlm-roberta", "XLMRoberta", "lsg-xlm-roberta-base-4096--modeling_lsg_xlm_roberta"),
    ),
    token_ids={"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
    has_decoder=False,
    doubled_separator=True,
)
BERT = Family(
    name="bert",
    title="BERT",
    members="BERT, DistilBERT or ELECTRA",
    entries="lsg_bert_base",
    arch="lsg_bert_base",
    types=(
        _bert("bert", "Bert", "lsg-bert-base-uncased-4096--modeling_lsg_bert"),
        ModelType(
            "distilbert",
            "DistilBert",
            "lsg-distilbert-base-uncased-4096--modeling_lsg_distilbert",
            keys="distilbert",
            config="distilbert",
            sizes={**ENCODER_SIZES, "encoder_layers": 6},
            head_activation="relu",
        ),
        _bert(
            "electra",
            "Electra",
            keys="electra",
            sizes=ELECTRA_SIZES,
            embedding_size=128,
            head_activation="gelu",
            lm_activation="gelu",
        ),
    ),
    token_ids={"pad_token_id": 0},
    has_decoder=False,
    globals_have_token_type=True,
)
FAMILIES: dict[str, Family] = {family.name: family for family in (BART, PEGASUS, MBART, BERT, ROBERTA)}
# Each model_type of Hugging Face with its family.
MODEL_TYPES: dict[str, tuple[Family, ModelType]] = {
    kind.name: (family, kind) for family in FAMILIES.values() for kind in family.types
}
# fairseq's own architectures, and the LSG ones of the same defaults.
STOCK_ARCHITECTURES = {stock: lsg for family in FAMILIES.values() for stock, lsg in family.stock.items()}


def family_of_arch(arch: str) -> Family:
    """The family of a registered architecture: its model class's `family`, or that of a stock one of fairseq.

    Raises:
        LSGError: it is neither an LSG architecture nor a stock one that an LSG model can be made of.
    """
    model = ARCH_MODEL_REGISTRY.get(STOCK_ARCHITECTURES.get(arch, arch))
    name = getattr(model, "family", None)
    if name not in FAMILIES:
        raise LSGError(
            f"{arch!r} is not an architecture of an LSG model: give a checkpoint of fairseq's "
            f"{', '.join(STOCK_ARCHITECTURES)} or of an LSG model"
        )
    return FAMILIES[name]
