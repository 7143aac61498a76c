"""Properties of the position and global tables, for other lengths than the reference has."""

from __future__ import annotations

import math

import pytest
import torch

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.position_tables import (
    global_positions,
    make_global_table,
    pegasus_sinusoids,
    resize_positions,
    tile_positions,
)


@pytest.mark.parametrize(("known", "length"), [(1, 5), (64, 4096), (1024, 1024), (1024, 4097), (1000, 600)])
def test_tiled_row_is_the_old_row_modulo_their_number(known, length):
    positions = torch.randn(known, 4)
    tiled = tile_positions(positions, length)
    assert tiled.shape == (length, 4)
    for row in (0, length // 2, length - 1):
        assert torch.equal(tiled[row], positions[row % known])


def test_tiling_in_two_steps_of_whole_tables_is_tiling_at_once():
    positions = torch.randn(16, 4)
    assert torch.equal(tile_positions(tile_positions(positions, 64), 256), tile_positions(positions, 256))


@pytest.mark.parametrize("num_rows", [512, 1000, 1024, 1100, 2048, 4096, 16384, 32768, 65536])
def test_global_positions_follow_the_published_formula(num_rows):
    factor = num_rows // 512
    step = max(1, 64 // factor)
    turns = 512 // step
    expected = [((k % turns) * step + k // turns) * factor for k in range(512)]
    assert global_positions(num_rows).tolist() == expected


@pytest.mark.parametrize("num_rows", [*range(512, 40000, 512), 700])
def test_global_positions_are_a_permutation_of_the_thinned_table(num_rows):
    factor = num_rows // 512
    positions = global_positions(num_rows).tolist()
    assert sorted(positions) == list(range(0, 512 * factor, factor))
    assert positions[1] - positions[0] == max(1, 64 // factor) * factor


def test_the_documented_order_for_1024():
    assert global_positions(1024)[:18].tolist() == [*range(0, 1024, 64), 2, 66]


def test_global_table_adds_one_first_token_and_masks():
    positions, tokens = torch.randn(1024, 8), torch.randn(20, 8)
    table = make_global_table(positions, tokens, bos_row=3, mask_row=7)
    assert table.shape == (512, 8)
    assert torch.equal(table[0], positions[0] + tokens[3])
    assert torch.equal(table[1], positions[64] + tokens[7])
    assert torch.equal(table[511], positions[1022] + tokens[7])


@pytest.mark.parametrize("known", [1, 2, 64, 511])
def test_short_tables_are_filled_up_the_same_way_each_time(known):
    positions, tokens = torch.randn(known, 8), torch.zeros(4, 8)
    table = make_global_table(positions, tokens, 0, 1)
    assert torch.equal(table, make_global_table(positions, tokens, 0, 1))
    other = make_global_table(positions, tokens, 0, 1, torch.Generator().manual_seed(9))
    assert table.isfinite().all()
    assert known == 1 or not torch.equal(table, other)
    # Row k of the table is position 64 * (k mod 8) + floor(k / 8): the known ones are the model's own.
    for row in (k for k in range(512) if 64 * (k % 8) + k // 8 < known):
        assert torch.equal(table[row], positions[64 * (row % 8) + row // 8])


def test_drawn_rows_have_the_mean_and_deviation_of_the_known_ones():
    positions = torch.randn(100, 3) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([4.0, 0.0, -2.0])
    order = global_positions(512)
    table = make_global_table(positions, torch.zeros(2, 3), 0, 1)
    drawn = table[order >= 100]
    assert torch.allclose(drawn.mean(0), positions.mean(0), atol=0.8)
    assert torch.allclose(drawn.std(0) / positions.std(0), torch.ones(3), atol=0.15)


@pytest.mark.parametrize(("bos", "mask", "name"), [(-1, 0, "bos_row"), (0, 4, "mask_row")])
def test_token_rows_must_exist(bos, mask, name):
    with pytest.raises(LSGError, match=name):
        make_global_table(torch.randn(512, 2), torch.randn(4, 2), bos, mask)


def test_sinusoids_are_the_formula():
    table = pegasus_sinusoids(5000, 6)
    for row in (0, 1, 4999):
        angles = [row / 10000 ** (2 * i / 6) for i in range(3)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert torch.equal(table[row], torch.tensor(expected, dtype=torch.float64).float())


@pytest.mark.parametrize("dim", [7, 64])
def test_sinusoids_equal_transformers(dim):
    modeling = pytest.importorskip("transformers.models.pegasus.modeling_pegasus")
    module = modeling.PegasusSinusoidalPositionalEmbedding(300, dim)
    torch.testing.assert_close(pegasus_sinusoids(300, dim), module.create_weight(), rtol=0, atol=1e-7)


def test_sinusoids_do_not_depend_on_the_length():
    assert torch.equal(pegasus_sinusoids(100, 8), pegasus_sinusoids(1000, 8)[:100])


def test_resizing_keeps_what_has_the_length_already():
    table = torch.randn(12, 4)
    assert resize_positions(table, "bart", 10) is table
    assert resize_positions(table, "pegasus", 12) is table


def test_resizing_bart_keeps_its_offset_rows():
    table = torch.randn(12, 4)
    longer = resize_positions(table, "bart", 25)
    assert longer.shape == (27, 4)
    assert torch.equal(longer[:12], table)
    assert torch.equal(longer[12:22], table[2:])
    assert torch.equal(longer[22:], table[2:7])


def test_pegasus_can_be_cut_because_its_table_is_computed():
    assert torch.equal(resize_positions(pegasus_sinusoids(64, 8), "pegasus", 16), pegasus_sinusoids(16, 8))


@pytest.mark.parametrize(("family", "length"), [("bart", 9), ("bart", 0), ("pegasus", 0), ("pegasus", -1)])
def test_lengths_that_are_refused(family, length):
    with pytest.raises(LSGError, match=f"to {length}"):
        resize_positions(torch.randn(12, 4), family, length)
