"""fairseq's searches on LSG models: diverse beams, matched lengths, n-grams of one token."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from fairseq import search
from fairseq.sequence_generator import SequenceGenerator
from test_alignment import EOS, depend_on_source, sample_of
from torch import nn

from lsg_fairseq.generation import LSGSequenceGenerator
from recipes.tiny_models import build_dictionary, build_model, random_tokens

LENGTHS = (40, 17, 29)


def texts(generator: Any, model: nn.Module, sample: dict[str, Any]) -> list[list[list[int]]]:
    return [[hypothesis["tokens"].tolist() for hypothesis in found] for found in generator.generate([model], sample)]


def diverse(kind: type, model: nn.Module) -> Any:
    dictionary = build_dictionary()
    strategy = search.DiverseBeamSearch(dictionary, num_groups=2, diversity_strength=0.5)
    return kind([model], dictionary, beam_size=4, max_len_b=9, search_strategy=strategy)


@pytest.mark.parametrize("kind", [LSGSequenceGenerator, SequenceGenerator])
def test_diverse_beams_depend_on_no_id_and_no_neighbour(kind: type) -> None:
    """The ids of the data set are beyond the batch, which gets smaller as outputs end."""
    model, source = build_model(), random_tokens(*LENGTHS)
    depend_on_source(model)
    together = texts(diverse(kind, model), model, {**sample_of(source), "id": torch.tensor([7, 90, 3])})
    alone = [
        texts(diverse(kind, model), model, {**sample_of(source[i : i + 1, :length]), "id": torch.tensor([50])})[0]
        for i, length in enumerate(LENGTHS)
    ]
    assert together == alone


def test_stock_search_looks_up_data_set_ids() -> None:
    stock = inspect.unwrap(SequenceGenerator._generate)
    generator = diverse(SequenceGenerator, build_model())
    with torch.no_grad(), pytest.raises(IndexError):
        stock(generator, {**sample_of(random_tokens(*LENGTHS)), "id": torch.tensor([7, 90, 3])})


def test_prefixes_are_asked_for_by_position_in_the_batch() -> None:
    model, dictionary, asked = build_model(), build_dictionary(), set()

    def allowed(position: int, tokens: torch.Tensor) -> list[int]:
        asked.add(position)
        return [10 + position, EOS]

    strategy = search.PrefixConstrainedBeamSearch(dictionary, allowed)
    generator = LSGSequenceGenerator([model], dictionary, beam_size=2, max_len_b=4, search_strategy=strategy)
    sample = {**sample_of(random_tokens(*LENGTHS)), "id": torch.tensor([7, 90, 3])}
    for position, found in enumerate(texts(generator, model, sample)):
        assert set(found[0]) <= {10 + position, EOS}
    assert asked == {0, 1, 2}


@pytest.mark.parametrize("kind", [LSGSequenceGenerator, SequenceGenerator])
def test_matched_length_ends_at_the_last_target_position(kind: type) -> None:
    """A source of 200 tokens, and a decoder of 32 positions."""
    model, dictionary = build_model(max_target_positions=32), build_dictionary()
    strategy = search.LengthConstrainedBeamSearch(dictionary, 1, 0, 1, 0)
    generator = kind([model], dictionary, beam_size=2, match_source_len=True, search_strategy=strategy)
    long, short = texts(generator, model, sample_of(random_tokens(200, 9)))
    assert len(long[0]) == 32
    assert len(short[0]) == 10  # nine tokens, as the source has, and the end


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_is_repeated_and_outputs_end(size: int) -> None:
    """BART's decoder starts with the token that ends it."""
    model = build_model()
    generator = LSGSequenceGenerator([model], build_dictionary(), beam_size=2, max_len_b=12, no_repeat_ngram_size=size)
    for found in texts(generator, model, sample_of(random_tokens(*LENGTHS))):
        for tokens in found:
            assert tokens[-1] == EOS
            ngrams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
            assert len(set(ngrams)) == len(ngrams)
