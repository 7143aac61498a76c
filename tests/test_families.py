"""The families table: whole, and the only place that knows a family by its name."""

from __future__ import annotations

import ast
from argparse import Namespace
from collections.abc import Iterator

import pytest
from fairseq.models import ARCH_MODEL_REGISTRY, register_model_architecture
from test_imports import PACKAGE_FILES, name_of

from lsg_fairseq.hub.entry_checkpoints import ENTRY_CHECKPOINTS
from lsg_fairseq.huggingface.config import CONFIG_KINDS, read_config
from lsg_fairseq.huggingface.encoder_keys import KEY_LAYOUTS
from lsg_fairseq.models.lsg_bart import lsg_bart_small_architecture
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.families import FAMILIES, MODEL_TYPES, Family, family_of_arch
from lsg_fairseq.weights.model_spec import spec_from_fairseq_args

LIBERTY = "lsg_bart_liberty"


@pytest.fixture
def liberty() -> Iterator[str]:
    """A user's own architecture, whose name contains "bert"."""
    register_model_architecture("lsg_bart", LIBERTY)(lsg_bart_small_architecture)
    yield LIBERTY
    from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_INV_REGISTRY, ARCH_MODEL_NAME_REGISTRY

    for registry in (ARCH_MODEL_REGISTRY, ARCH_CONFIG_REGISTRY, ARCH_MODEL_NAME_REGISTRY):
        del registry[LIBERTY]
    ARCH_MODEL_INV_REGISTRY["lsg_bart"].remove(LIBERTY)


def test_an_architecture_belongs_to_the_family_of_its_model(liberty: str) -> None:
    args = Namespace(arch=liberty)
    lsg_bart_small_architecture(args)
    assert family_of_arch(liberty).name == "bart"
    assert spec_from_fairseq_args(vars(args), 100).decoder_layers == 3


@pytest.mark.parametrize(
    ("arch", "family"),
    [
        ("lsg_bart_base", "bart"),
        ("bart_large", "bart"),
        ("lsg_pegasus_small", "pegasus"),
        ("lsg_roberta_large", "roberta"),
        ("roberta_base", "roberta"),
        ("lsg_bert_base", "bert"),
    ],
)
def test_families_of_architectures(arch: str, family: str) -> None:
    assert family_of_arch(arch).name == family


@pytest.mark.parametrize("arch", ["transformer", "bert", "", "lsg_bart_huge"])
def test_other_architectures_are_refused(arch: str) -> None:
    with pytest.raises(LSGError, match=f"{arch!r} is not an architecture of an LSG model"):
        family_of_arch(arch)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_rows_are_whole(family: Family) -> None:
    """What a row names exists, and its first type is the family's own."""
    assert family_of_arch(family.arch) is family
    assert family.types[0].name == family.name
    assert all(FAMILIES[family_of_arch(stock).name] is family for stock in family.stock)
    entries = family.entries.split(" or ")
    assert {ENTRY_CHECKPOINTS[entry].family for entry in entries} == {family.name}
    for kind in family.types:
        assert MODEL_TYPES[kind.name] == (family, kind)
        assert kind.config in CONFIG_KINDS
        assert kind.keys in KEY_LAYOUTS or family.has_decoder
        spec, args = read_config({"model_type": kind.name, "embedding_size": kind.sizes["encoder_embed_dim"]})
        assert (spec.row, spec.kind, args["arch"]) == (family, kind, family.arch)


@pytest.mark.parametrize("path", [p for p in PACKAGE_FILES if p.name != "families.py"], ids=name_of)
def test_no_file_asks_for_a_family_by_its_name(path) -> None:
    compared = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and side.value in FAMILIES
    ]
    assert compared == []
