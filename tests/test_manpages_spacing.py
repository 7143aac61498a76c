"""What the tokenizer of the box writes: the same tokens in, text with usual spaces out."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from examples.manpages.box.pack import write_tokenizer
from examples.manpages.training.warm_start import FIRST, LAST, write_vocabulary
from lsg_fairseq.tokenizers.fairseq_bpe import DocumentTokenizer, load_tokenizer

WORDS = "object oriented c net amazon s3 etc passwd printf don t x 7 2 format the is key value".split()
PIECES = [*FIRST, *"+-/:_().,'=", *WORDS, "##ting", *LAST]
TEXTS = [  # slashes and brackets can be either way: as is most frequent
    "object-oriented c++",
    "net::amazon::s3",
    "printf (2), etc/passwd is",
    "key_value = 7.2, don't",
    "the formatting: c, x",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_vocabulary(PIECES, tmp_path)
    return tmp_path


def both(folder: Path) -> tuple[DocumentTokenizer, DocumentTokenizer]:
    before = load_tokenizer(folder)
    write_tokenizer(folder)
    return before, load_tokenizer(folder)


def test_text_is_read_as_before_and_written_as_people_do(folder: Path) -> None:
    before, after = both(folder)
    assert after.tokens == before.tokens
    for text in TEXTS:
        assert after.encode(text) == before.encode(text)
        assert after.unk not in after.encode(text)
        assert after.decode(after.encode(text)) == text
        assert before.decode(before.encode(text)) != text


def test_transformers_reads_and_writes_the_same(folder: Path) -> None:
    write_tokenizer(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert theirs.convert_ids_to_tokens(ids)[0] == FIRST[0]
        assert theirs.convert_ids_to_tokens(ids)[-1] == FIRST[2]
        assert theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text
