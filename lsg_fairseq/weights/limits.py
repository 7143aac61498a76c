"""What numbers may be: checked before memory is allocated for what a file or a flag asks for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lsg_fairseq.modules.lsg_config import LSGError

# Far above every published model.
MAX_POSITIONS, MAX_LAYERS, MAX_WIDTH, MAX_VOCABULARY = 2**18, 1024, 2**17, 2**24
# fairseq says so many where there is no limit; the product of two of them is a 64-bit number.
MANY = 2**31
NAMES_SHOWN = 5
# Bytes of a file of settings or of a vocabulary, far above every published one.
MAX_SETTINGS = 2**28


class Bounds(NamedTuple):
    """What a number may be: an integer, or with `float` any number, from `least` to `most`."""

    kind: type
    least: float
    most: float

    def allow(self, value: Any) -> bool:
        """Whether it is such a number; NaN is none."""
        types = int | float if self.kind is float else int
        return isinstance(value, types) and not isinstance(value, bool) and self.least <= value <= self.most

    def __str__(self) -> str:
        if self.kind is int:
            return f"an integer from {self.least:,} to {self.most:,}"
        return f"a number from {self.least:g} to {self.most:g}"


# fairseq's names of model arguments that are numbers.
SIDES = ("encoder", "decoder")
RATES = ("dropout", "attention_dropout", "activation_dropout", "relu_dropout", "pooler_dropout")
RATES += ("encoder_layerdrop", "decoder_layerdrop", "adaptive_softmax_dropout", "quant_noise_pq")
MODEL_NUMBERS: dict[str, Bounds] = {
    **{f"{side}_layers": Bounds(int, 0, MAX_LAYERS) for side in SIDES},
    **{f"{side}_{name}": Bounds(int, 1, MAX_WIDTH) for side in SIDES for name in ("embed_dim", "ffn_embed_dim")},
    **{f"{side}_attention_heads": Bounds(int, 1, MAX_WIDTH) for side in SIDES},
    **{f"decoder_{name}_dim": Bounds(int, 1, MAX_WIDTH) for name in ("input", "output")},
    **dict.fromkeys(("max_source_positions", "max_target_positions", "max_positions"), Bounds(int, 1, MAX_POSITIONS)),
    "tokens_per_sample": Bounds(int, 1, MAX_POSITIONS),
    **dict.fromkeys(RATES, Bounds(float, 0, 1)),
    "quant_noise_pq_block_size": Bounds(int, 1, MAX_WIDTH),
    "adaptive_softmax_factor": Bounds(float, 1, MAX_WIDTH),
    "layer_norm_eps": Bounds(float, 1e-30, 1),
    "min_params_to_wrap": Bounds(int, 0, 2**63 - 1),
}
# Those that are true or false: of a text such as "False" fairseq would make true.
SWITCHES = tuple(f"{side}_{name}" for side in SIDES for name in ("normalize_before", "learned_pos"))
SWITCHES += ("share_all_embeddings", "share_decoder_input_output_embed", "no_scale_embedding", "layernorm_embedding")
SWITCHES += ("no_cross_attention", "cross_self_attention", "no_token_positional_embeddings", "untie_weights_roberta")
SWITCHES += ("checkpoint_activations", "offload_activations", "adaptive_input", "no_decoder_final_norm")
# What the flags of lsg-* commands, settings of a generation and arguments of torch.hub may be: each by its name.
NUMBERS: dict[str, Bounds] = {
    # A search: each beam takes memory of its own, and lengths to the power of a larger penalty are no float any more.
    "beam": Bounds(int, 1, 1000),
    "lenpen": Bounds(float, -50, 50),
    "unkpen": Bounds(float, -(10**6), 10**6),
    "temperature": Bounds(float, 1e-6, 10**6),
    "min_len": Bounds(int, 0, MANY),
    "max_len_a": Bounds(float, 0, MAX_POSITIONS),
    "max_len_b": Bounds(int, 1, MANY),
    "no_repeat_ngram_size": Bounds(int, 0, MANY),
    "sampling_topk": Bounds(int, -1, MANY),
    "sampling_topp": Bounds(float, -1, 1),
    "diverse_beam_groups": Bounds(int, -1, 1000),
    "diverse_beam_strength": Bounds(float, 0, 10**6),
    "diversity_rate": Bounds(float, -1, 10**6),
    # Work, and how it is shared out.
    "batch_size": Bounds(int, 1, MANY),
    "max_tokens": Bounds(int, 1, MANY),
    "num_shards": Bounds(int, 1, MANY),
    "shard_id": Bounds(int, 0, MANY - 1),
    "workers": Bounds(int, 1, 1024),
    "distributed_world_size": Bounds(int, 1, 2**20),
    "update_freq": Bounds(int, 1, MANY),
    # Which checkpoints of a training.
    "num_epoch_checkpoints": Bounds(int, 1, MANY),
    "num_update_checkpoints": Bounds(int, 1, MANY),
    "checkpoint_upper_bound": Bounds(int, 0, MANY),
    # Sizes: below 8 positions there is no room for a text between what surrounds it.
    "max_source_positions": Bounds(int, 8, MAX_POSITIONS),
    "max_target_positions": Bounds(int, 8, MAX_POSITIONS),
    "vocab_size": Bounds(int, 5, MAX_VOCABULARY),
    # BART's four specials, the 256 byte symbols and <mask>; the largest published vocabularies have a million entries,
    # and memory is taken for as many as are asked for.
    "train_tokenizer": Bounds(int, 261, 2_000_000),
    # GiB of a device.
    "gpu_memory": Bounds(float, 0, 2**20),
    "reserve": Bounds(float, 0, 2**20),
}


def check_number(name: str, value: Any, bounds: Bounds | None = None, called: str = "") -> None:
    """Check one number, by NUMBERS unless other bounds are given; `called`: what the user knows it as.

    Raises:
        LSGError: it is none, or out of range.
    """
    bounds = bounds or NUMBERS[name]
    if not bounds.allow(value):
        raise LSGError(f"{called or name} must be {bounds}, not {value!r:.80}: correct it")


def check_size(name: str, value: Any, least: int, most: int) -> None:
    """Check one size.

    Raises:
        LSGError: it is not an integer from `least` to `most`.
    """
    check_number(name, value, Bounds(int, least, most))


def check_sizes(args: Mapping[str, Any]) -> None:
    """Check the numbers and switches among fairseq's model arguments; missing ones pass.

    Raises:
        LSGError: one is not a number, or out of range, or not true or false.
    """
    for name, bounds in MODEL_NUMBERS.items():
        if args.get(name) is not None:
            check_number(name, args[name], bounds)
    for name in SWITCHES:
        value = args.get(name)
        if not (value is None or (isinstance(value, bool | int) and value in (0, 1))):
            raise LSGError(f"{name} must be true or false, not {value!r:.80}: correct it")


def check_file(path: Path) -> None:
    """Check that a file of settings or a vocabulary is no larger than one can be: it is read as a whole.

    Raises:
        LSGError: it is larger; a file of holes, which takes no room where it comes from, can be of any size.
    """
    if path.is_file() and path.stat().st_size > MAX_SETTINGS:
        raise LSGError(
            f"{path} is larger than {MAX_SETTINGS:,} bytes, which no such file is: remove it, or fetch it again"
        )


def check_name(path: str | Path) -> None:
    """Check that a path is text: torch, tokenizers and safetensors open no other, and blame the file.

    Raises:
        LSGError: it is not.
    """
    name = os.path.abspath(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise LSGError(
            f"the name {name!r} is no UTF-8, and what reads and writes models needs that: rename it"
        ) from error


def first_names(names: Iterable[str]) -> str:
    """The first names, and how many more there are: a model has thousands of tensors."""
    names = [str(name) for name in names]
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
