"""Special tokens in what a model has written: left out where transformers leaves them out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from encoder_models import transformers, write_tokenizer
from reference_checkpoints import REFERENCE

from lsg_fairseq.tokenizers.base import DocumentTokenizer, listed_specials
from lsg_fairseq.tokenizers.fairseq_bpe import LSGBPE, load_tokenizer, symbol_from_token

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")


def written(tokenizer: DocumentTokenizer, ids: list[int]) -> str:
    return tokenizer.decode_plain(tokenizer.tokens[i] for i in ids)


@needs_reference
@pytest.mark.parametrize("name", ["bart_n1024_short", "pegasus_n1024_short"])
def test_every_token_is_left_out_or_kept_as_in_transformers(name: str) -> None:
    folder = REFERENCE / "models" / name
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    left_out = {i for i in range(len(ours.tokens)) if ours.tokens[i] in ours.special}
    names = {theirs.convert_ids_to_tokens(i) for i in theirs.all_special_ids}
    assert {ours.tokens[i] for i in left_out} >= names
    assert all(theirs.decode([i], skip_special_tokens=True) == "" for i in left_out)


@needs_reference
def test_pegasus_summaries_have_no_unks_and_masks() -> None:
    folder = REFERENCE / "models" / "pegasus_n1024_short"
    ours = load_tokenizer(folder)
    words = ours.encode("the cat")
    assert ours.decode_plain(["<unk_66>", *words, "<mask_1>", "<unk>", "</s>"]) == ours.decode(words)
    symbols = " ".join(map(symbol_from_token, [*words, "<unk_66>", "<mask_2>"]))
    assert LSGBPE.from_folder(folder).decode(symbols) == ours.decode(words)
    # What a user decodes is shown as it is.
    assert "<unk_66>" in ours.decode(["<unk_66>", *words])


def test_added_special_tokens_and_no_others(tmp_path: Path) -> None:
    """Tokens added as special are left out, plain ones stay; the vocabulary's own flags are read."""
    write_tokenizer("roberta", tmp_path)
    theirs = transformers.RobertaTokenizerFast.from_pretrained(tmp_path)
    theirs.add_special_tokens({"additional_special_tokens": ["[DOC]"]})
    theirs.add_tokens(["covid19"])
    theirs.save_pretrained(tmp_path / "saved")
    ours = load_tokenizer(tmp_path / "saved")
    ids = [theirs.convert_tokens_to_ids(token) for token in ("[DOC]", "!", "covid19", "<mask>", "#", "<unk>", "</s>")]
    assert written(ours, ids) == theirs.decode(ids, skip_special_tokens=True) == "!covid19#"
    assert "[DOC]" in ours.special


def test_special_tokens_that_settings_list() -> None:
    settings = json.loads(
        '{"additional_special_tokens": ["a", {"content": "b"}, 3], "extra_special_tokens": {"image": "c", "x": null}}'
    )
    assert listed_specials(settings) == {"a", "b", "c"}
    assert listed_specials({"extra_special_tokens": ["d"], "additional_special_tokens": None}) == {"d"}
    assert listed_specials({"extra_special_tokens": 7}) == set()
