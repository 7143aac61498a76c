"""The rouge scorer: what it is given and what it prints, against properties of ROUGE."""

from __future__ import annotations

from argparse import Namespace

import pytest
from fairseq.data import Dictionary
from fairseq.scoring import build_scorer
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer as RougeCounter

from lsg_fairseq.scoring import ROUGE_NAMES, RougeScorer, RougeScorerConfig, rouge_scores, split_sentences

NOUNS = ["tide", "rope", "stone", "harbour", "light", "wind"]
WORDS = st.lists(st.sampled_from(NOUNS), min_size=1, max_size=8).map(" ".join)


def make_scorer(stemmer: str = "true") -> RougeScorer:
    return RougeScorer(RougeScorerConfig(rouge_stemmer=stemmer))


def test_fairseq_builds_it_by_name() -> None:
    """As fairseq-generate --scoring rouge does, from the parsed command line."""
    assert isinstance(build_scorer(Namespace(scoring="rouge", rouge_stemmer="true"), Dictionary()), RougeScorer)


@given(reference=WORDS, prediction=WORDS)
def test_f1_is_symmetric_and_bounded(reference: str, prediction: str) -> None:
    scores = rouge_scores(reference, prediction)
    assert tuple(scores) == ROUGE_NAMES
    assert all(0 <= value <= 1 for value in scores.values())
    assert rouge_scores(prediction, reference) == pytest.approx(scores)


@given(text=WORDS)
def test_a_copy_scores_100_and_foreign_words_0(text: str) -> None:
    assert rouge_scores(text, text)["rougeLsum"] == pytest.approx(1)
    assert set(rouge_scores(text, "nothing shared").values()) == {0}


def test_lsum_takes_sentences_in_any_order() -> None:
    """What sets Lsum apart from L: it compares sentence by sentence."""
    reference, prediction = "The tide was low. The stone fell.", "The stone fell. The tide was low."
    scores = rouge_scores(reference, prediction)
    assert scores["rougeLsum"] == pytest.approx(1)
    assert scores["rougeL"] < 1
    assert rouge_scores(reference.replace(". ", ".<n>"), prediction)["rougeLsum"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("one. still one\n\ntwo. still two", ["one. still one", "two. still two"]),
        ("one<n>two", ["one", "two"]),
        ("3.14 is pi", ["3.14 is pi"]),
        ("  ", []),
    ],
)
def test_sentence_splitting(text: str, lines: list[str]) -> None:
    assert split_sentences(text).splitlines() == lines


def test_stemmer_can_be_switched_off() -> None:
    with_stemmer, without = make_scorer(), make_scorer("false")
    for scorer in (with_stemmer, without):
        scorer.add_string("painting lighthouses", "painted lighthouse")
    assert with_stemmer.score() == pytest.approx(100)
    assert without.score() == 0


def test_means_over_examples_and_one_readable_line() -> None:
    scorer = make_scorer()
    scorer.add_string("the tide was low", "the tide was low")
    scorer.add_string("the tide was low", "a rope")
    assert scorer.score() == pytest.approx(50)
    line = scorer.result_string()
    assert line == "ROUGE-1 50.00, ROUGE-2 50.00, ROUGE-L 50.00, ROUGE-Lsum 50.00 (F1 x 100, 2 examples)"


def test_without_examples_it_says_so() -> None:
    assert "0 examples" in make_scorer().result_string()


def test_single_sentence_scores_equal_the_package() -> None:
    reference, prediction = "the old lighthouse was painted white", "a lighthouse painted in white paint"
    expected = RougeCounter(list(ROUGE_NAMES), use_stemmer=True).score(reference, prediction)
    assert rouge_scores(reference, prediction) == {name: expected[name].fmeasure for name in ROUGE_NAMES}
