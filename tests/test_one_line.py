"""Texts in lines: whatever a reader may take for the end of a line comes out as `<n>`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lsg_fairseq.data.kept_part import MIDDLE, PARTS, KeptPart, kept_slices
from lsg_fairseq.scoring import split_sentences
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationTask
from lsg_fairseq.tokenizers.base import LINE_BREAKS, on_one_line
from lsg_fairseq.tokenizers.fairseq_bpe import LSGBPE, LineBPE, train_tokenizer


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> LSGBPE:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["low tide, old stone " * 5], 280, folder)
    return LSGBPE.from_folder(folder)


def test_every_line_break_of_python_is_known() -> None:
    assert {c for c in map(chr, range(0x110000)) if len(f"a{c}b".splitlines()) > 1} == set(LINE_BREAKS)


@pytest.mark.parametrize("line_break", [*LINE_BREAKS, "\r\n", " \r \n\n "], ids=repr)
def test_a_break_in_a_text_is_written_as_n(bpe: LSGBPE, line_break: str) -> None:
    text = f"low tide{line_break}old stone{line_break}"
    assert on_one_line(text) == "low tide <n> old stone <n>"
    printed = LineBPE(bpe).decode(bpe.encode(text))
    assert printed == "low tide <n> old stone <n>"
    # Python's own text files, which translate \r, and everything that splits lines read it as one.
    assert (printed + "\n").splitlines() == [printed]


def test_what_is_no_line_break_stays() -> None:
    assert on_one_line("a\tb\u00a0c  d\u200be") == "a\tb\u00a0c  d\u200be"


@pytest.mark.parametrize("line_break", LINE_BREAKS, ids=repr)
def test_rouge_reads_sentences_the_same_before_and_after(line_break: str) -> None:
    text = f"low. tide{line_break}old. stone"
    assert split_sentences(text) == split_sentences(on_one_line(text)) == "low. tide\nold. stone"


def test_lines_read_back_are_lines_written(bpe: LSGBPE, tmp_path: Path) -> None:
    texts = [f"low{c}tide" for c in LINE_BREAKS]
    path = tmp_path / "printed"
    path.write_text("".join(f"S-{i}\t{LineBPE(bpe).decode(bpe.encode(t))}\n" for i, t in enumerate(texts)))
    assert len(path.read_text().splitlines()) == len(texts)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("word", ["a cat ", "cat", " " * 99 + "x"])
def test_of_a_very_long_line_an_excerpt_is_tokenised(word: str, part: str, corpus: Path, caplog) -> None:
    """What fairseq-interactive reads of it is the same, and the rest takes no memory."""
    bpe = LSGBPE.from_folder(corpus / "tokenizer")
    task = SimpleNamespace(max_positions=lambda: (16, 8), kept_part=KeptPart(part), data_bpe=bpe)

    def tokenize(text: str) -> list[str]:
        return LSGSummarizationTask._tokenize(task, text)

    whole, read = bpe.encode(word * 3000).split(), LineBPE(bpe, tokenize).encode(word * 3000).split()
    if part != MIDDLE:  # found by characters
        assert kept(read, part) == kept(whole, part)
    assert len(read) < 16 * 33 * 2
    assert "it is not read completely" in caplog.text
    assert LineBPE(bpe, tokenize).encode(word) == bpe.encode(word)


def kept(tokens: list[str], part: str) -> list[str]:
    return [token for piece in kept_slices(len(tokens), 16, part) for token in tokens[piece]]
