"""ModelSpec: the sizes that fix a state dict's shapes, from fairseq's arguments or Hugging Face's config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lsg_fairseq.weights.families import FAMILIES, MODEL_TYPES, Family, ModelType, family_of_arch
from lsg_fairseq.weights.limits import MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, MAX_WIDTH, check_size


@dataclass(frozen=True)
class ModelSpec:
    """Everything that fixes the shapes of a checkpoint.

    vocab_size counts Hugging Face's embedding rows; fairseq's table has one more where `rows` leaves `<pad>` free.
    Positions are usable ones: fairseq's two offset rows are not counted. An encoder-only model has decoder sizes and
    target positions of 0.

    family is the name of a row of families.FAMILIES, model_type Hugging Face's name where the family has several
    ("camembert" is a roberta), "" for the family's own; token_types counts the rows of Hugging Face's token type table,
    which fairseq has none of.
    """

    family: str
    vocab_size: int
    embed_dim: int
    encoder_layers: int
    decoder_layers: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    max_source_positions: int
    max_target_positions: int
    is_lsg: bool = False
    model_type: str = ""
    token_types: int = 0

    def __post_init__(self) -> None:
        has_decoder = self.has_decoder
        for name, most in (("embed_dim", MAX_WIDTH), ("encoder_ffn_dim", MAX_WIDTH), ("encoder_layers", MAX_LAYERS)):
            check_size(name, getattr(self, name), 1, most)
        check_size("vocab_size", self.vocab_size, 0, MAX_VOCABULARY)
        check_size("max_source_positions", self.max_source_positions, 1, MAX_POSITIONS)
        check_size("max_target_positions", self.max_target_positions, int(has_decoder), MAX_POSITIONS)
        check_size("decoder_layers", self.decoder_layers, 0, MAX_LAYERS)
        check_size("decoder_ffn_dim", self.decoder_ffn_dim, 0, MAX_WIDTH)

    @property
    def row(self) -> Family:
        """The family's row."""
        return FAMILIES[self.family]

    @property
    def kind(self) -> ModelType:
        """What Hugging Face calls it."""
        return MODEL_TYPES[self.model_type or self.family][1]

    @property
    def position_offset(self) -> int:
        """fairseq's rows in front of position 0."""
        return self.row.position_offset

    @property
    def missing_offset(self) -> int:
        """How many of fairseq's offset rows an encoder's position table in Hugging Face is without."""
        return self.position_offset - self.kind.position_offset

    @property
    def has_decoder(self) -> bool:
        """Whether this is an encoder-decoder."""
        return self.row.has_decoder

    def encoder_key(self, key: str) -> str:
        """fairseq's name of an encoder-decoder's `encoder.` weight in this family: RoBERTa nests its encoder."""
        return key if self.has_decoder else key.replace("encoder.", "encoder.sentence_encoder.", 1)


def spec_from_fairseq_args(args: Mapping[str, Any], vocab_size: int, is_lsg: bool = True) -> ModelSpec:
    """Read the sizes out of a fairseq model's arguments, `vars(args)`; the inverse of read_config's arguments."""
    return spec_of_family(family_of_arch(args["arch"]), args.__getitem__, vocab_size, is_lsg)


def spec_of_family(family: Family, argument: Callable[[str], Any], vocab_size: int, is_lsg: bool = True) -> ModelSpec:
    """The same where the family is known; `argument` looks a model argument up by its name."""
    has_decoder = family.has_decoder
    return ModelSpec(
        family=family.name,
        vocab_size=vocab_size,
        embed_dim=argument("encoder_embed_dim"),
        encoder_layers=argument("encoder_layers"),
        decoder_layers=argument("decoder_layers") if has_decoder else 0,
        encoder_ffn_dim=argument("encoder_ffn_embed_dim"),
        decoder_ffn_dim=argument("decoder_ffn_embed_dim") if has_decoder else 0,
        max_source_positions=argument("max_source_positions" if has_decoder else "max_positions"),
        max_target_positions=argument("max_target_positions") if has_decoder else 0,
        is_lsg=is_lsg,
    )
