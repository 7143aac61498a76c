"""What fixes the shapes of a model's state dict, whatever brought the model: fairseq or Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Families of encoders alone, for which ModelSpec has no decoder sizes.
ENCODER_FAMILIES = ("bert", "roberta")


@dataclass(frozen=True)
class ModelSpec:
    """Everything that fixes the shapes of a checkpoint.

    vocab_size counts Hugging Face's embedding rows; fairseq's table has one more where `rows` leaves `<pad>` free.
    Positions are usable ones: fairseq's two offset rows are not counted. An encoder alone (a family of
    ENCODER_FAMILIES) has decoder sizes and target positions of 0.

    model_type is Hugging Face's name where a family has several ("camembert" is a roberta), "" for the family's own;
    token_types counts the rows of Hugging Face's token type table, which fairseq has none of.
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

    @property
    def position_offset(self) -> int:
        """Rows in front of position 0: learned tables keep fairseq's two (positions started at padding_idx + 1)."""
        return 0 if self.family == "pegasus" else 2

    @property
    def has_decoder(self) -> bool:
        """Whether this is an encoder-decoder."""
        return self.family not in ENCODER_FAMILIES

    def encoder_key(self, key: str) -> str:
        """fairseq's name of an encoder-decoder's `encoder.` weight in this family: RoBERTa nests its encoder."""
        return key if self.has_decoder else key.replace("encoder.", "encoder.sentence_encoder.", 1)


def spec_from_fairseq_args(args: Mapping[str, Any], vocab_size: int, is_lsg: bool = True) -> ModelSpec:
    """Read the sizes out of a fairseq model's arguments, `vars(args)`; hf_config.fairseq_args_from_hf's inverse."""
    family = family_of_arch(args["arch"])
    is_encoder = family in ENCODER_FAMILIES
    return ModelSpec(
        family=family,
        vocab_size=vocab_size,
        embed_dim=args["encoder_embed_dim"],
        encoder_layers=args["encoder_layers"],
        decoder_layers=0 if is_encoder else args["decoder_layers"],
        encoder_ffn_dim=args["encoder_ffn_embed_dim"],
        decoder_ffn_dim=0 if is_encoder else args["decoder_ffn_embed_dim"],
        max_source_positions=args["max_positions" if is_encoder else "max_source_positions"],
        max_target_positions=0 if is_encoder else args["max_target_positions"],
        is_lsg=is_lsg,
    )


def family_of_arch(arch: str) -> str:
    """The family of a fairseq architecture by its name, such as "lsg_bart_large"; "bart" where none is in it."""
    return next((family for family in ("pegasus", "roberta", "bert") if family in arch), "bart")
