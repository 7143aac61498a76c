"""LSGConfig refuses what cannot work, says why, and repairs nothing."""

from __future__ import annotations

import dataclasses
import pickle
import re
from typing import Any

import pytest

from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError

TYPES = ["none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride"]
FREE_TYPES = ["pooling", "bos_pooling", "stride", "block_stride"]

DEFAULTS = {
    "attention": "lsg",
    "block_size": 128,
    "sparse_block_size": 128,
    "sparsity_factor": 2,
    "sparsity_type": "norm",
    "lsh_num_pre_rounds": 1,
    "lsh_seed": 0,
    "num_global_tokens": 1,
    "mask_first_token": False,
    "pass_global_tokens_to_decoder": True,
    "pool_with_global": True,
    "adaptive": True,
}
INTEGERS = [name for name, value in DEFAULTS.items() if type(value) is int]
BOOLEANS = [name for name, value in DEFAULTS.items() if type(value) is bool]


def assert_refused(settings: dict[str, Any], *said: object) -> None:
    """Making the config fails, and the message contains each of `said` as a word."""
    with pytest.raises(LSGError) as error:
        LSGConfig(**settings)
    for word in said:
        assert re.search(rf"(?<![\w-]){re.escape(str(word))}(?!\w)", str(error.value)), f"{word} not in: {error.value}"


def test_defaults_are_those_of_hugging_face() -> None:
    assert dataclasses.asdict(LSGConfig()) == DEFAULTS


def test_every_field_has_a_line_of_help() -> None:
    for field in dataclasses.fields(LSGConfig):
        assert field.metadata["help"]
        assert "\n" not in field.metadata["help"]


def test_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="block_size"):
        LSGConfig(block_size=0)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_accepted(kind: str) -> None:
    assert LSGConfig(sparsity_type=kind).sparsity_type == kind


@pytest.mark.parametrize("value", [1, 2, 511, 512])
def test_number_of_globals_in_range(value: int) -> None:
    assert LSGConfig(num_global_tokens=value).num_global_tokens == value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"sparsity_type": "nrom"}, ("sparsity_type", "'nrom'", *TYPES), id="unknown type"),
        pytest.param({"sparsity_type": ""}, ("sparsity_type", *TYPES), id="empty type"),
        pytest.param({"attention": "lgs"}, ("attention", "'lgs'", "lsg"), id="unknown attention"),
        pytest.param({"num_global_tokens": 0}, ("num_global_tokens", 0, 1, 512), id="no globals"),
        pytest.param({"num_global_tokens": -1}, ("num_global_tokens", -1, 1, 512), id="negative globals"),
        pytest.param({"num_global_tokens": 513}, ("num_global_tokens", 513, 1, 512), id="too many globals"),
        pytest.param({"block_size": 0}, ("block_size", 0), id="zero block"),
        pytest.param({"block_size": -128}, ("block_size", -128), id="negative block"),
        pytest.param({"sparse_block_size": -1}, ("sparse_block_size", -1), id="negative sparse block"),
        pytest.param({"sparsity_factor": -2}, ("sparsity_factor", -2), id="negative factor"),
        pytest.param({"lsh_num_pre_rounds": -1}, ("lsh_num_pre_rounds", -1), id="negative rounds"),
        pytest.param(
            {"mask_first_token": True, "pool_with_global": False},
            ("mask_first_token", "pool_with_global"),
            id="nothing left of token 0",
        ),
    ],
)
def test_bad_value_is_refused(settings: dict[str, Any], said: tuple[object, ...]) -> None:
    assert_refused(settings, *said)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", ["64", 64.0, True, None, [64]], ids=repr)
def test_integers_must_be_integers(name: str, value: object) -> None:
    assert_refused({name: value}, name, "int")


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("value", ["true", 1, 0.0, None], ids=repr)
def test_booleans_must_be_booleans(name: str, value: object) -> None:
    assert_refused({name: value}, name, "bool")


@pytest.mark.parametrize("value", [1, True, ["norm"]], ids=repr)
def test_type_must_be_a_string(value: object) -> None:
    assert_refused({"sparsity_type": value}, "sparsity_type")


# --- rules between fields -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TYPES[1:])
@pytest.mark.parametrize(("block", "factor"), [(128, 3), (64, 128), (100, 8)])
def test_factor_must_divide_block(kind: str, block: int, factor: int) -> None:
    settings = {"sparsity_type": kind, "block_size": block, "sparsity_factor": factor, "sparse_block_size": block}
    assert_refused(settings, "sparsity_factor", factor, "block_size", block)


@pytest.mark.parametrize("kind", ["norm", "lsh"])
@pytest.mark.parametrize(
    ("block", "sparse_block", "factor"),
    [
        pytest.param(128, 4, 8, id="factor larger than the chunk"),
        pytest.param(12, 6, 4, id="factor does not divide the chunk"),
    ],
)
def test_factor_must_divide_chunk_of_norm_and_lsh(kind: str, block: int, sparse_block: int, factor: int) -> None:
    sizes = {"block_size": block, "sparse_block_size": sparse_block, "sparsity_factor": factor}
    assert_refused({"sparsity_type": kind, **sizes}, "sparsity_factor", factor, min(block, sparse_block), kind)
    assert_accepted_by_other_types(sizes)


@pytest.mark.parametrize("kind", ["norm", "lsh"])
@pytest.mark.parametrize(("block", "sparse_block"), [(128, 96), (12, 8), (9, 6)])
def test_chunk_of_norm_and_lsh_must_divide_block(kind: str, block: int, sparse_block: int) -> None:
    factor = 3 if block == 9 else 2
    sizes = {"block_size": block, "sparse_block_size": sparse_block, "sparsity_factor": factor}
    assert_refused({"sparsity_type": kind, **sizes}, "sparse_block_size", sparse_block, "block_size", block, kind)
    assert_accepted_by_other_types(sizes)


def assert_accepted_by_other_types(sizes: dict[str, int]) -> None:
    for kind in FREE_TYPES:
        assert LSGConfig(sparsity_type=kind, **sizes).block_size == sizes["block_size"]


@pytest.mark.parametrize("kind", ["norm", "lsh"])
@pytest.mark.parametrize("sizes", [(128, 256, 2), (128, 100_000, 128), (64, 32, 32), (8, 1, 1), (8, 5, 1)])
def test_allowed_chunks(kind: str, sizes: tuple[int, int, int]) -> None:
    block, sparse_block, factor = sizes
    config = LSGConfig(sparsity_type=kind, block_size=block, sparse_block_size=sparse_block, sparsity_factor=factor)
    assert (config.block_size, config.sparse_block_size, config.sparsity_factor) == sizes


def test_lsh_that_is_bos_pooling_has_no_chunk() -> None:
    sizes = {"block_size": 12, "sparse_block_size": 12, "sparsity_factor": 12}
    assert LSGConfig(sparsity_type="lsh", **sizes).sparsity_factor == 12


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity_type": "none", "sparsity_factor": 7},
        {"sparsity_type": "none", "sparse_block_size": 5},
        {"sparsity_type": None, "sparsity_factor": 1000},
        {"sparsity_type": "none", "sparsity_factor": 0, "sparse_block_size": 0},
        *({"sparsity_type": kind, "sparsity_factor": 0, "sparse_block_size": 5} for kind in TYPES),
        *({"sparsity_type": kind, "sparsity_factor": 7, "sparse_block_size": 0} for kind in TYPES),
    ],
    ids=str,
)
def test_unused_settings_do_not_matter(settings: dict[str, Any]) -> None:
    config = LSGConfig(**settings)
    assert {name: getattr(config, name) for name in settings} == {
        **settings,
        "sparsity_type": settings["sparsity_type"] or "none",
    }


# --- the object -----------------------------------------------------------------------------------------------------


def test_null_means_none() -> None:
    assert LSGConfig(sparsity_type=None) == LSGConfig(sparsity_type="none")


def test_frozen_hashable_and_comparable() -> None:
    config = LSGConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.block_size = 64
    assert hash(config) == hash(LSGConfig())
    assert config != LSGConfig(block_size=64)
    assert pickle.loads(pickle.dumps(config)) == config


def test_replace_checks_again() -> None:
    config = LSGConfig(block_size=64)
    assert dataclasses.replace(config, sparsity_factor=4) == LSGConfig(block_size=64, sparsity_factor=4)
    with pytest.raises(LSGError, match="sparsity_factor"):
        dataclasses.replace(config, sparsity_factor=3)


def test_from_dict_round_trip() -> None:
    config = LSGConfig(block_size=64, sparsity_type="lsh", mask_first_token=True)
    assert LSGConfig.from_dict(dataclasses.asdict(config)) == config
    assert LSGConfig.from_dict({}) == LSGConfig()


def test_from_dict_checks() -> None:
    with pytest.raises(LSGError, match="num_global_tokens"):
        LSGConfig.from_dict({"num_global_tokens": 513})


def test_from_dict_knows_the_alias_of_the_model_cards() -> None:
    given = {"lsg_num_pre_rounds": 3}
    assert LSGConfig.from_dict(given).lsh_num_pre_rounds == 3
    assert given == {"lsg_num_pre_rounds": 3}


def test_from_dict_refuses_a_field_given_twice() -> None:
    # Taking either would be a silent repair.
    with pytest.raises(LSGError, match="lsg_num_pre_rounds"):
        LSGConfig.from_dict({"lsh_num_pre_rounds": 3, "lsg_num_pre_rounds": 4})


def test_from_dict_refuses_unknown_names() -> None:
    with pytest.raises(LSGError, match="blok_size") as error:
        LSGConfig.from_dict({"blok_size": 64})
    assert all(name in str(error.value) for name in DEFAULTS)
