"""Settings of LSG attention: one frozen object, checked when it is made, whatever made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from lsg_fairseq.modules import registry

# Rows of the learned table that global tokens are taken from (Hugging Face LSG checkpoints store this many).
MAX_GLOBAL_TOKENS = 512

# Bounds on work and memory. lsh_seed: torch takes seeds of 63 bits, and each layer adds its index.
MOST = {
    "block_size": 2**18,
    "sparse_block_size": 2**18,
    "sparsity_factor": 2**18,
    "lsh_num_pre_rounds": 100,
    "lsh_seed": 2**62,
}

# The model cards spell this field differently from the configuration files.
FIELD_ALIASES = {"lsg_num_pre_rounds": "lsh_num_pre_rounds"}


class LSGError(ValueError):
    """Invalid input, explained in one sentence: what was wrong, the value, what is allowed, what to do.

    Lone surrogates, which JSON allows, are escaped: no terminal or log could print them.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence.encode("utf-8", "backslashreplace").decode())


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class LSGConfig:
    """Parameters of LSG attention (names and defaults of the Hugging Face LSG configurations).

    Raises:
        LSGError: a value is outside what its field allows; nothing is repaired.
    """

    attention: str = _option("lsg", "encoder self-attention, by its registered name: lsg, full, or your own")
    block_size: int = _option(128, "tokens in a block; a query sees its own block and one on each side")
    sparse_block_size: int = _option(128, "sparse keys on each side of the local window; 0: none")
    sparsity_factor: int = _option(2, "how many tokens become one sparse token; 0: no sparse tokens")
    sparsity_type: str = _option("norm", "how sparse tokens are chosen, by registered name, or none")
    lsh_num_pre_rounds: int = _option(1, "lsh: extra hashing rounds at full size")
    lsh_seed: int = _option(0, "lsh: seed of the random projections in evaluation")
    num_global_tokens: int = _option(1, "learned tokens in front, seen by and seeing everything: 1 to 512")
    mask_first_token: bool = _option(False, "hide regular token 0 from encoder attention")
    pass_global_tokens_to_decoder: bool = _option(True, "keep the global rows in the encoder output")
    pool_with_global: bool = _option(True, "if they are not kept, global 0 replaces the row of token 0")
    adaptive: bool = _option(True, "pad the source to a multiple of the block by itself")

    def __post_init__(self) -> None:
        if self.sparsity_type is None:
            object.__setattr__(self, "sparsity_type", "none")
        self._check_types()
        self._check_names()
        self._check_ranges()
        if self.has_sparse_tokens:
            self._check_sparse_blocks()

    @property
    def has_sparse_tokens(self) -> bool:
        """Whether a query sees any sparse key at all."""
        return self.sparsity_type != "none" and self.sparsity_factor > 0 and self.sparse_block_size > 0

    @property
    def sparse_step(self) -> int:
        """How far the sparse windows move from one block to the next, in sparse tokens."""
        return self.block_size // self.sparsity_factor

    @property
    def chunk_size(self) -> int:
        """Tokens in the chunk that norm and lsh choose within."""
        return min(self.block_size, self.sparse_block_size)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LSGConfig:
        """Make a configuration from names and values, aliases of the model cards included.

        Raises:
            LSGError: a name is not a field, or a value is not allowed.
        """
        renamed = {FIELD_ALIASES.get(name, name): value for name, value in values.items()}
        known = [f.name for f in fields(cls)]
        for alias, name in FIELD_ALIASES.items():
            if alias in values and name in values:
                raise LSGError(f"{alias} and {name} are the same LSG setting; give one of them")
        for name in renamed:
            if name not in known:
                raise LSGError(f"there is no LSG setting {name!r}; choose from {', '.join(known)}")
        return cls(**renamed)

    def _check_types(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            expected = type(f.default)
            if f.default is not MISSING and type(value) is not expected:
                raise LSGError(f"{f.name} must be of type {expected.__name__}, not {value!r}")

    def _check_names(self) -> None:
        registry.look_up(registry.ENCODER_ATTENTIONS, "attention", self.attention, LSGError)
        if self.sparsity_type != "none":
            registry.look_up(registry.SPARSE_SELECTIONS, "sparsity_type", self.sparsity_type, LSGError)

    def _check_ranges(self) -> None:
        if self.block_size < 1:
            raise LSGError(f"block_size must be at least 1, not {self.block_size}")
        for name in ("sparse_block_size", "sparsity_factor", "lsh_num_pre_rounds", "lsh_seed"):
            if getattr(self, name) < 0:
                raise LSGError(f"{name} must be 0 or more, not {getattr(self, name)}")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise LSGError(f"{name} must be at most {most}, not {getattr(self, name)}")
        if not 1 <= self.num_global_tokens <= MAX_GLOBAL_TOKENS:
            raise LSGError(f"num_global_tokens must be 1 to {MAX_GLOBAL_TOKENS}, not {self.num_global_tokens}")
        if self.mask_first_token and not self.pool_with_global:
            raise LSGError("mask_first_token=True needs pool_with_global=True: otherwise nothing stands for token 0")

    def _check_sparse_blocks(self) -> None:
        block, factor = self.block_size, self.sparsity_factor
        if block % factor:
            raise LSGError(f"sparsity_factor must divide block_size ({block}), which {factor} does not")
        if factor == 1 or self.sparsity_type not in ("norm", "lsh"):
            return
        if self.sparsity_type == "lsh" and factor == self.sparse_block_size:
            return
        chunk = self.chunk_size
        if block % chunk:
            raise LSGError(
                f"sparse_block_size must divide block_size ({block}) or be larger with sparsity_type "
                f"{self.sparsity_type!r}, and {self.sparse_block_size} is neither"
            )
        if chunk % factor:
            raise LSGError(
                f"sparsity_factor must divide the smaller of block_size and sparse_block_size ({chunk}) with "
                f"sparsity_type {self.sparsity_type!r}, which {factor} does not"
            )
