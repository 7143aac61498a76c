"""What the LSG models share: flags made from LSGConfig, upgrades of checkpoints, an encoder-decoder's hooks."""

from __future__ import annotations

import argparse
import functools
import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lsg_fairseq.compat.pruning import count_kept_layers, forget_kept_layers, prune_state_dict
from lsg_fairseq.models.lsg_decoder import LSGDecoder
from lsg_fairseq.models.lsg_encoder import LSGEncoder
from lsg_fairseq.models.refusals import building, check_weights, loading, refuse_what_has_no_place
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.weights.families import FAMILIES
from lsg_fairseq.weights.limits import check_sizes
from lsg_fairseq.weights.model_spec import ModelSpec, spec_of_family
from lsg_fairseq.weights.position_tables import resize_both
from lsg_fairseq.weights.state_dicts import GLOBAL_TABLE, SOURCE_POSITIONS, TARGET_POSITIONS, TOKEN_TABLE
from lsg_fairseq.weights.upgrades import LM_HEAD_BIAS, upgrade_fairseq_bart

logger = logging.getLogger(__name__)

FLAG_PREFIX = "lsg_"
# Flags of this package that start with the prefix, but are not about attention; a checkpoint stores all flags together.
OTHER_FLAGS = {"lsg_config", "lsg_tokenizer"}


def add_lsg_flags(
    parser: argparse._ActionsContainer, prefix: str = FLAG_PREFIX, own: Mapping[str, Any] | None = None
) -> None:
    """Add `--lsg-<field>` for every field of LSGConfig; a flag that is not given stays unset.

    Args:
        own: as for fill_lsg_defaults; the help states these defaults.
    """
    for f in fields(LSGConfig):
        parse = _true_or_false if isinstance(f.default, bool) else type(f.default)
        metavar = "true|false" if isinstance(f.default, bool) else parse.__name__.upper()
        default = (own or {}).get(f.name, f.default)
        parser.add_argument(
            "--" + (prefix + f.name).replace("_", "-"),
            type=parse,
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=f"{f.metadata['help']} (default: {str(default).lower() if metavar == 'true|false' else default})",
        )


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def fill_missing(args: Namespace | DictConfig, defaults: Mapping[str, Any]) -> None:
    """Set the arguments that are missing or None, as fairseq's architecture functions do with getattr."""
    for name, value in defaults.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)


def fill_lsg_defaults(args: Namespace | DictConfig, own: Mapping[str, Any] | None = None) -> None:
    """Write every LSG setting into the arguments, so that a checkpoint carries what it was trained with.

    Args:
        own: fields of LSGConfig whose default differs in this kind of model.
    """
    defaults = {f.name: f.default for f in fields(LSGConfig)} | dict(own or {})
    fill_missing(args, {FLAG_PREFIX + name: value for name, value in defaults.items()})


def read_lsg_config(args: Namespace) -> LSGConfig:
    """The LSGConfig that the `lsg_*` arguments describe.

    Raises:
        LSGError: one of them is unknown, for instance misspelled in --model-overrides, or its value is not allowed.
    """
    given = {name: value for name, value in vars(args).items() if name.startswith(FLAG_PREFIX)}
    return LSGConfig.from_dict({n.removeprefix(FLAG_PREFIX): v for n, v in given.items() if n not in OTHER_FLAGS})


class LSGModelMixin:
    """What every LSG model has: `--lsg-*` flags, an LSGConfig, and upgrades of older checkpoints.

    A subclass sets `family`, the name of its row in weights.families, and implements `_upgraded`.
    """

    family: str
    lsg_defaults: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def add_args(cls, parser: argparse._ActionsContainer) -> None:
        """Add fairseq's model flags and the `--lsg-*` ones."""
        super().add_args(parser)
        add_lsg_flags(parser, own=cls.lsg_defaults)

    @classmethod
    def with_lsg_config(cls, args: Namespace | DictConfig) -> Namespace:
        """A copy of flags, a hydra configuration or a checkpoint's arguments, with their LSGConfig as `lsg_config`.

        Raises:
            LSGError: an LSG setting is unknown or not allowed, or another attention kernel is asked for.
        """
        count_kept_layers(args)  # in the original: a checkpoint must store the sizes that it has
        plain = OmegaConf.to_container(args, resolve=True) if OmegaConf.is_config(args) else vars(args)
        check_sizes(plain)
        # A copy: the LSGConfig object must not end up in the arguments that a checkpoint stores.
        args = Namespace(**plain)
        forget_kept_layers(args)
        fill_missing(args, {FLAG_PREFIX + name: value for name, value in cls.lsg_defaults.items()})
        args.lsg_config = read_lsg_config(args)
        refuse_what_has_no_place(plain)
        return args

    @property
    def spec(self) -> ModelSpec:
        """The sizes that fix the shapes of this model's state dict; vocab_size is the length of its dictionary."""
        # getattr, since fairseq's TransformerConfig resolves the flat names of its sub-configurations.
        argument = functools.partial(getattr, self.args)
        return spec_of_family(FAMILIES[self.family], argument, len(self.encoder.dictionary))

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, model_cfg: Any = None, args: Any = None
    ) -> Any:
        """As fairseq's, but layers that the settings do not keep are pruned before the checkpoint is upgraded.

        Raises:
            LSGError: a weight is not a dense floating-point tensor, or the weights do not fit the model.
        """
        check_weights(self, state_dict)
        with loading():
            return super().load_state_dict(prune_state_dict(state_dict, model_cfg), strict, model_cfg, args)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Upgrade a checkpoint to this model, in place: a stock one, or an LSG model with fewer positions.

        Raises:
            LSGError: it is of another size, or its position tables are longer than the model's.
        """
        if name == "":
            upgraded = self._upgraded(state_dict)
            changes = describe_changes(state_dict, upgraded, self.spec)
            replace_content(state_dict, upgraded)
            if changes:
                logger.info(f"checkpoint brought up to this model: {'; '.join(changes)}")
        with loading():
            super().upgrade_state_dict_named(state_dict, name)

    def _upgraded(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a checkpoint's state dict as this model needs it; tensors that fit already are shared."""
        raise NotImplementedError


class LSGEncoderDecoderMixin(LSGModelMixin):
    """Mixin for a fairseq encoder-decoder class, which it precedes: the LSG encoder and decoder."""

    encoder_class: type[LSGEncoder] = LSGEncoder
    decoder_class: type[LSGDecoder] = LSGDecoder

    @classmethod
    def build_model(cls, args: Namespace | DictConfig, task: Any) -> nn.Module:
        """Build a model from flags, a hydra configuration or a checkpoint's arguments; raises as with_lsg_config."""
        args = cls.with_lsg_config(args)
        fill_missing(args, {"task": "lsg_summarization"})
        with building():
            return super().build_model(args, task)

    @classmethod
    def build_encoder(cls, args: Any, src_dict: Any, embed_tokens: nn.Embedding) -> LSGEncoder:
        cfg = TransformerConfig.from_namespace(args)
        return cls.encoder_class(cfg, src_dict, embed_tokens, cfg.lsg_config)

    @classmethod
    def build_decoder(cls, args: Any, tgt_dict: Any, embed_tokens: nn.Embedding) -> LSGDecoder:
        cfg = TransformerConfig.from_namespace(args)
        decoder = cls.decoder_class(cfg, tgt_dict, embed_tokens, no_encoder_attn=cfg.no_cross_attention)
        if cfg.lsg_config.pass_global_tokens_to_decoder:
            decoder.num_global_rows = cfg.lsg_config.num_global_tokens
        return decoder

    def set_beam_size(self, beam: int) -> None:
        """Let `beam` rows of the decoder share one source; training and scoring need 1 again."""
        for layer in self.decoder.layers:
            for attention in (layer.self_attn, layer.encoder_attn):
                if attention is not None:
                    attention.set_beam_size(beam)
        self.encoder.beams_share_output = beam > 1

    def set_source_dtype(self, dtype: torch.dtype | None) -> None:
        """Set the dtype in which generation caches the keys and values of sources; None: the model's."""
        for layer in self.decoder.layers:
            if layer.encoder_attn is not None:
                layer.encoder_attn.source_dtype = dtype

    def _upgraded(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.args.share_all_embeddings or self.decoder.output_projection is None:
            return state
        dictionary, spec = self.encoder.dictionary, self.spec
        if spec.row.stock:
            return upgrade_fairseq_bart(state, spec, mask_row(dictionary))
        return resize_both(state, spec, spec.max_source_positions, spec.max_target_positions)[0]


def mask_row(dictionary: Dictionary) -> int | None:
    """The dictionary's row of `<mask>`, None if it has none."""
    row = dictionary.index("<mask>")
    return None if row == dictionary.unk() else row


def replace_content(state_dict: dict[str, Tensor], content: dict[str, Tensor]) -> None:
    """Replace what a state dict holds, in place, as fairseq's upgrade hooks expect."""
    content = dict(content)
    state_dict.clear()
    state_dict.update(content)


def describe_changes(before: Mapping[str, Tensor], after: Mapping[str, Tensor], spec: ModelSpec) -> list[str]:
    """Phrases that say what an upgrade did; bookkeeping such as renamed keys is left out."""
    source, tokens, table = (spec.encoder_key(key) for key in (SOURCE_POSITIONS, TOKEN_TABLE, GLOBAL_TABLE))
    names = {
        source: "source position table" if spec.has_decoder else "position table",
        TARGET_POSITIONS: "target position table",
        tokens: "embedding table (<mask> row)",
    }
    pairs = [(what, len(before[key]), len(after[key])) for key, what in names.items() if key in before]
    changes = [f"{what} of {old:,} rows made {new:,}" for what, old, new in pairs if old != new]
    if table in after and table not in before:
        changes.append(f"global table of {len(after[table])} rows made from its positions")
    if LM_HEAD_BIAS in after and LM_HEAD_BIAS not in before:
        changes.append("masked-LM head made with initial values, as it has none")
    return changes
