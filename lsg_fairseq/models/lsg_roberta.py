"""LSG-RoBERTa and LSG-BERT: fairseq's RoBERTa, an encoder-only model, with the LSG encoder inside."""

from __future__ import annotations

import argparse
from argparse import Namespace
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from fairseq.models import register_model, register_model_architecture
from fairseq.models.roberta.model import RobertaEncoder, RobertaModel, base_architecture, roberta_large_architecture
from fairseq.models.transformer import TransformerConfig
from fairseq.modules.transformer_sentence_encoder import init_bert_params
from omegaconf import DictConfig
from torch import Tensor, nn

from lsg_fairseq.models.lsg_encoder import LSGEncoder
from lsg_fairseq.models.lsg_model import LSGModelMixin, fill_lsg_defaults, fill_missing, mask_row, replace_content
from lsg_fairseq.models.refusals import building
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.families import BERT, ROBERTA
from lsg_fairseq.weights.state_dicts import TOKEN_TABLE, check_copies
from lsg_fairseq.weights.upgrades import (
    LM_HEAD_WEIGHT,
    num_layers,
    upgrade_fairseq_roberta,
    with_current_names,
)

DEFAULT_POSITIONS = 4096
ROBERTA_EPS, BERT_EPS = 1e-5, 1e-12


class LSGRobertaEncoder(RobertaEncoder):
    """fairseq's RoBERTa encoder (embeddings, layers, masked-LM head) around an LSGEncoder."""

    def build_encoder(self, args: Namespace, dictionary: Any, embed_tokens: nn.Embedding) -> LSGEncoder:
        cfg = TransformerConfig.from_namespace(args)
        encoder = LSGEncoder(cfg, dictionary, embed_tokens, cfg.lsg_config)
        encoder.apply(init_bert_params)
        return encoder

    def extract_features(
        self, src_tokens: Tensor, return_all_hiddens: bool = False, **kwargs: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """(B,T0) tokens, padded on the right -> features (B,T0,C); see RobertaEncoder.

        Raises:
            LSGError: a row begins with padding: the LSG encoder moves it, and targets would no longer match their rows.
        """
        if not torch.compiler.is_compiling() and src_tokens[:, 0].eq(self.dictionary.pad()).any():
            raise LSGError("a row of src_tokens begins with <pad>: pad on the right for an encoder-only model")
        return super().extract_features(src_tokens, return_all_hiddens, **kwargs)


@register_model("lsg_roberta")
class LSGRobertaModel(LSGModelMixin, RobertaModel):
    """RoBERTa (arXiv 1907.11692) whose self-attention is LSG attention (arXiv 2210.15497).

    Output rows are those of the tokens, without the global ones. pool_with_global replaces row 0, which classification
    heads read, by the first global token's.
    """

    family = ROBERTA.name
    lsg_defaults = MappingProxyType({"pass_global_tokens_to_decoder": False})

    @classmethod
    def add_args(cls, parser: argparse._ActionsContainer) -> None:
        """Add fairseq's RoBERTa flags, the `--lsg-*` ones, and those that only its other transformers have."""
        super().add_args(parser)
        parser.add_argument("--layer-norm-eps", type=float, metavar="E", help="epsilon of every layer norm")
        parser.add_argument(
            "--checkpoint-activations",
            action="store_true",
            help="keep only the input of each layer, and recompute its activations in the backward pass",
        )
        parser.add_argument(
            "--offload-activations",
            action="store_true",
            help="keep checkpointed activations in CPU memory (sets --checkpoint-activations)",
        )

    @classmethod
    def build_model(cls, args: Namespace | DictConfig, task: Any) -> nn.Module:
        """Build a model from flags, a hydra configuration or a checkpoint's arguments.

        Raises:
            LSGError: as with_lsg_config, global tokens are to be passed on, or layer_norm_eps is not positive.
        """
        args = cls.with_lsg_config(args)
        _fill_lsg_roberta_defaults(args)
        if args.lsg_config.pass_global_tokens_to_decoder:
            raise LSGError(
                "pass_global_tokens_to_decoder must be false for an encoder-only model, whose output rows are its "
                "tokens': leave it out (pool_with_global puts a global token's output in the first row)"
            )
        with building():
            model = cls(args, LSGRobertaEncoder(args, task.source_dictionary))
        set_layer_norm_eps(model, args.layer_norm_eps)
        return model

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """As LSGModelMixin's, after keys of 2019 got today's names; RobertaModel sees to the heads."""
        if name == "":
            replace_content(state_dict, with_current_names(state_dict))
        super().upgrade_state_dict_named(state_dict, name)

    def _upgraded(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        spec = self.spec
        if self.args.encoder_layers_to_keep:  # fairseq prunes a state dict after it was upgraded
            spec = replace(spec, encoder_layers=num_layers(state))
        upgraded = upgrade_fairseq_roberta(state, spec, mask_row(self.encoder.dictionary))
        if not self.args.untie_weights_roberta:
            check_copies(spec.encoder_key(TOKEN_TABLE), upgraded, [LM_HEAD_WEIGHT], "give --untie-weights-roberta")
        return upgraded


@register_model("lsg_bert")
class LSGBertModel(LSGRobertaModel):
    """BERT (arXiv 1810.04805), built like RoBERTa, whose self-attention is LSG attention (arXiv 2210.15497)."""

    family = BERT.name


def set_layer_norm_eps(model: nn.Module, eps: float) -> None:
    """Set the epsilon of every layer norm of a model: fairseq builds them with 1e-5, BERT has 1e-12.

    Raises:
        LSGError: eps is not positive.
    """
    if not eps > 0:
        raise LSGError(f"layer_norm_eps must be positive, such as 1e-5 or 1e-12, not {eps}: correct it")
    for module in model.modules():
        # apex' fused layer norm, which fairseq uses where it is installed, is not an nn.LayerNorm.
        if hasattr(module, "eps") and hasattr(module, "normalized_shape"):
            module.eps = eps


@register_model_architecture("lsg_roberta", "lsg_roberta_base")
def lsg_roberta_base_architecture(args: Namespace | DictConfig) -> None:
    """RoBERTa-base's sizes: 12 layers, 768 wide, 12 heads."""
    _fill_lsg_roberta_defaults(args)
    base_architecture(args)


@register_model_architecture("lsg_roberta", "lsg_roberta_large")
def lsg_roberta_large_architecture(args: Namespace | DictConfig) -> None:
    """RoBERTa-large's sizes: 24 layers, 1,024 wide, 16 heads."""
    _fill_lsg_roberta_defaults(args)
    roberta_large_architecture(args)


@register_model_architecture("lsg_bert", "lsg_bert_base")
def lsg_bert_base_architecture(args: Namespace | DictConfig) -> None:
    """BERT-base: RoBERTa-base's sizes and BERT's epsilon."""
    fill_missing(args, {"layer_norm_eps": BERT_EPS})
    lsg_roberta_base_architecture(args)


@register_model_architecture("lsg_roberta", "lsg_roberta_small")
def lsg_roberta_small_architecture(args: Namespace | DictConfig) -> None:
    """A small model for CPUs, experiments and tests: 3 layers, 256 wide, 4 heads."""
    small = {"embed_dim": 256, "ffn_embed_dim": 1024, "layers": 3, "attention_heads": 4}
    fill_missing(args, {f"encoder_{name}": value for name, value in small.items()})
    lsg_roberta_base_architecture(args)


def _fill_lsg_roberta_defaults(args: Namespace | DictConfig) -> None:
    # --tokens-per-sample has to fit. fairseq's RoBERTa has as many positions as that, 1,024 by default.
    positions = max(DEFAULT_POSITIONS, getattr(args, "tokens_per_sample", None) or 0)
    fill_missing(args, {"max_positions": positions, "layer_norm_eps": ROBERTA_EPS})
    fill_missing(args, {"checkpoint_activations": False, "offload_activations": False})
    args.checkpoint_activations |= args.offload_activations
    fill_lsg_defaults(args, LSGRobertaModel.lsg_defaults)
