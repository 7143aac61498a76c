"""What a tokenizer folder is told by besides its vocabulary: the kind, null, added tokens, and Pegasus' masks."""

# ruff: noqa: F811 (fixtures of the other tokenizer tests)

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from encoder_models import transformers
from reference_checkpoints import REFERENCE
from test_encoder_tokenizers import check_ids, piece_model, vocabulary, write_vocabulary  # noqa: F401
from test_tokenization import bart_folder, pegasus_folder  # noqa: F401
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import DocumentTokenizer
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer
from lsg_fairseq.tokenizers.load import swap_masks
from lsg_fairseq.tokenizers.sequence_format import PEGASUS_FORMAT

TEXTS = ["the tide was low", " a rope  and <mask> a stone", "a <mask_1> b"]


def write_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def saved_and_read(tokenizer: DocumentTokenizer, folder: Path) -> DocumentTokenizer:
    folder.mkdir()
    tokenizer.save(folder)
    return load_tokenizer(folder)


def copy_folder(source: Path, target: Path, **settings: Any) -> Path:
    """A copy with other settings; None takes one out."""
    shutil.copytree(source, target)
    path = target / "tokenizer_config.json"
    merged = json.loads(path.read_text()) | settings
    write_json(path, **{name: value for name, value in merged.items() if value is not None})
    return target


# --- the kind -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "model_type"), [("XLMRoberta", "xlm-roberta"), ("Camembert", "camembert")])
@pytest.mark.parametrize("stated", ["tokenizer_class", "model_type", "lsg", "argument"])
@pytest.mark.parametrize("generic", [None, "PreTrainedTokenizerFast", "TokenizersBackend"])
def test_kind_of_a_sentencepiece_model(
    kind: str,
    model_type: str,
    stated: str,
    generic: str | None,
    piece_model: bytes,
    tmp_path: Path,
) -> None:
    folder, named = tmp_path / "model", tmp_path / "named"
    for path, tokenizer_class in ((folder, generic), (named, f"{kind}Tokenizer")):
        path.mkdir()
        (path / "sentencepiece.bpe.model").write_bytes(piece_model)
        write_json(path / "tokenizer_config.json", tokenizer_class=tokenizer_class)
    config = {
        "tokenizer_class": {"model_type": "bert", "tokenizer_class": f"{kind}TokenizerFast"},
        "lsg": {"model_type": f"lsg_{model_type}"},
    }.get(stated, {"model_type": model_type})
    if stated != "argument":
        write_json(folder / "config.json", **config)
    tokenizer = load_tokenizer(folder, config if stated == "argument" else None)
    expected = load_tokenizer(named)
    assert tokenizer.tokens == expected.tokens
    # A saved folder is read without the checkpoint.
    again = saved_and_read(tokenizer, tmp_path / "saved")
    assert again.tokens == expected.tokens
    assert [again.encode(text) for text in TEXTS] == [expected.encode(text) for text in TEXTS]
    assert saved_and_read(again, tmp_path / "once-more").tokens == expected.tokens


def test_settings_win_over_config_json(piece_model: bytes, tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(piece_model)
    write_json(tmp_path / "tokenizer_config.json", tokenizer_class="CamembertTokenizer")
    write_json(tmp_path / "config.json", tokenizer_class="XLMRobertaTokenizer", model_type="xlm-roberta")
    assert load_tokenizer(tmp_path).tokens[0] == "<s>NOTUSED"


def test_pegasus_by_its_model_type(pegasus_folder: Path, tmp_path: Path) -> None:
    folder = copy_folder(pegasus_folder, tmp_path / "model", tokenizer_class="PreTrainedTokenizerFast")
    write_json(folder / "config.json", model_type="pegasus")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokens == load_tokenizer(pegasus_folder).tokens
    assert tokenizer.sequence_format == PEGASUS_FORMAT


def test_config_json_names_a_tokenizer_that_is_not_berts(vocabulary: list[str], tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "bert", vocabulary, tokenizer_class=None)
    write_json(folder / "config.json", model_type="bert", tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(LSGError, match="belongs to a BertJapaneseTokenizer"):
        load_tokenizer(folder)


# --- null -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["tokenizer_class", "added_tokens_decoder", "mask_token", "add_prefix_space", "additional_special_tokens"]
)
@pytest.mark.parametrize("kind", ["bart", "pegasus"])
def test_null_is_not_stated(name: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = request.getfixturevalue(f"{kind}_folder")
    absent = load_tokenizer(copy_folder(source, tmp_path / "absent", **{name: None}))
    null = tmp_path / "null"
    shutil.copytree(tmp_path / "absent", null)
    write_json(
        null / "tokenizer_config.json", **json.loads((null / "tokenizer_config.json").read_text()) | {name: None}
    )
    tokenizer = load_tokenizer(null)
    assert tokenizer.tokens == absent.tokens
    assert (tokenizer.mask, tokenizer.sequence_format) == (absent.mask, absent.sequence_format)
    assert [tokenizer.encode(text) for text in TEXTS] == [absent.encode(text) for text in TEXTS]


@pytest.mark.parametrize("name", ["do_lower_case", "strip_accents", "tokenize_chinese_chars"])
@pytest.mark.parametrize("has_json", [False, True])
def test_null_for_wordpiece(name: str, has_json: bool, vocabulary: list[str], tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "bert", vocabulary)
    theirs = transformers.BertTokenizer.from_pretrained(folder)
    if has_json:
        theirs.save_pretrained(folder)
    write_vocabulary(folder, vocabulary, **{name: None})
    check_ids(load_tokenizer(folder), theirs, ["Éclairs AND jam", "patience東京 stone"])


@pytest.mark.parametrize(("name", "value"), [("tokenizer_class", 5), ("added_tokens_decoder", ["<mask>"])])
def test_settings_of_another_type(name: str, value: object, bart_folder: Path, tmp_path: Path) -> None:
    folder = copy_folder(bart_folder, tmp_path / "model", **{name: value})
    with pytest.raises(LSGError, match=rf"tokenizer_config\.json must state {name} as .*correct it"):
        load_tokenizer(folder)


# --- added tokens ---------------------------------------------------------------------------------------------------


def added_entry(content: str, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    return {"content": content, "special": special, "normalized": not special, **flags}


@pytest.mark.parametrize("place", ["added_tokens.json", "added_tokens_decoder"])
def test_tokens_added_to_wordpiece(place: str, vocabulary: list[str], tmp_path: Path) -> None:
    count = len(vocabulary)
    entries = [added_entry("covid19", False), added_entry("[DOC]", True)]
    decoder = {str(count + i): entry for i, entry in enumerate(entries)} if place.endswith("decoder") else {}
    folder = write_vocabulary(tmp_path / "bert", vocabulary, **({"added_tokens_decoder": decoder} if decoder else {}))
    if not decoder:
        write_json(folder / "added_tokens.json", **{entry["content"]: count + i for i, entry in enumerate(entries)})
        write_json(folder / "special_tokens_map.json", additional_special_tokens=["[DOC]"])
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokens[count:] == ["covid19", "[DOC]"]
    text = "the COVID19 tide [DOC] covid19"
    assert [token for token in tokenizer.encode(text) if token in ("covid19", "[DOC]")] == [
        "covid19",
        "[DOC]",
        "covid19",
    ]
    assert "[DOC]" not in tokenizer.encode("[doc]")
    assert saved_and_read(tokenizer, tmp_path / "saved").encode(text) == tokenizer.encode(text)
    if decoder:
        check_ids(tokenizer, transformers.BertTokenizer.from_pretrained(folder), [text, "the tide[DOC] was [doc]"])


@pytest.mark.parametrize("kind", ["bert", "bart"])
def test_added_tokens_with_a_gap_in_their_ids(
    kind: str,
    vocabulary: list[str],
    bart_folder: Path,
    tmp_path: Path,
) -> None:
    if kind == "bert":
        folder = write_vocabulary(tmp_path / "bert", vocabulary)
    else:
        folder = copy_folder(bart_folder, tmp_path / "bart")
    count = len(load_tokenizer(folder).tokens)
    write_json(folder / "added_tokens.json", covid19=count + 3)
    with pytest.raises(LSGError, match=rf"'covid19' is to have id {count + 3}, and the vocabulary gives it {count}"):
        load_tokenizer(folder)
    write_json(folder / "added_tokens.json", covid19="last")
    with pytest.raises(LSGError, match=r"added_tokens\.json cannot be read as ids of added tokens"):
        load_tokenizer(folder)


# --- Pegasus' masks -------------------------------------------------------------------------------------------------


def pegasus_json(like: DocumentTokenizer) -> Tokenizer:
    """A tokenizer.json of Pegasus' tokens, in the weights' order."""
    unk = like.tokens.index("<unk>")
    scores = [(token, 0.0 if i <= unk else -1.0 - i / 100) for i, token in enumerate(like.tokens)]
    backend = Tokenizer(models.Unigram(scores, unk_id=unk))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(like.tokens[: unk + 1])
    return backend


@pytest.fixture
def swapped_folder(pegasus_folder: Path, tmp_path: Path) -> Path:
    """What transformers 5 saves: `<mask_2>` is id 2 there."""
    folder = tmp_path / "swapped"
    folder.mkdir()
    backend = swap_masks(pegasus_json(load_tokenizer(pegasus_folder)))
    assert backend.id_to_token(2) == "<mask_2>"
    backend.save(str(folder / "tokenizer.json"))
    decoder = {"2": added_entry("<mask_2>", True), "3": added_entry("<mask_1>", True)}
    write_json(folder / "tokenizer_config.json", tokenizer_class="PegasusTokenizer", added_tokens_decoder=decoder)
    return folder


@pytest.mark.parametrize("named", ["PegasusTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", None])
@pytest.mark.parametrize("has_pieces", [False, True])
def test_swapped_masks_are_put_right(
    named: str | None,
    has_pieces: bool,
    swapped_folder: Path,
    pegasus_folder: Path,
    tmp_path: Path,
) -> None:
    folder = copy_folder(swapped_folder, tmp_path / "model", tokenizer_class=named)
    if has_pieces:
        shutil.copyfile(pegasus_folder / "spiece.model", folder / "spiece.model")
    tokenizer, expected = load_tokenizer(folder), load_tokenizer(pegasus_folder)
    assert tokenizer.tokens == expected.tokens
    assert (tokenizer.mask, tokenizer.sequence_format) == ("<mask_2>", PEGASUS_FORMAT)
    assert "<mask_1>" in tokenizer.encode("a <mask_1> b")
    again = saved_and_read(tokenizer, tmp_path / "saved")
    assert again.encode("a <mask_1> b") == tokenizer.encode("a <mask_1> b")
    assert Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json")).token_to_id("<mask_1>") == 2
    settings = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert settings["added_tokens_decoder"]["2"]["content"] == "<mask_1>"
    theirs = transformers.PegasusTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs.convert_tokens_to_ids(["<mask_1>", "<mask_2>"]) == [2, 3]


def test_masks_in_place_stay_as_they_are(pegasus_folder: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", tokenizer_class="PegasusTokenizer")
    pegasus_json(load_tokenizer(pegasus_folder)).save(str(tmp_path / "tokenizer.json"))
    content = (tmp_path / "tokenizer.json").read_bytes()
    saved_and_read(load_tokenizer(tmp_path), tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == content


def test_export_does_not_pass_the_swap_on(tmp_path: Path) -> None:
    source = REFERENCE / "models" / "pegasus_n1024_short"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    folder, expected = copy_folder(source, tmp_path / "hf", tokenizer_class="TokenizersBackend"), load_tokenizer(source)
    swap_masks(pegasus_json(expected)).save(str(folder / "tokenizer.json"))
    (folder / "spiece.model").unlink()
    convert_checkpoint(folder, tmp_path / "out")
    convert_checkpoint(source, tmp_path / "straight")
    assert (tmp_path / "out" / "dict.txt").read_text() == (tmp_path / "straight" / "dict.txt").read_text()
    export_checkpoint(tmp_path / "out", tmp_path / "back", short=True)
    assert load_tokenizer(tmp_path / "back").tokens == expected.tokens
    exported = Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    assert [exported.id_to_token(i) for i in range(4)] == expected.tokens[:4]
    assert json.loads((tmp_path / "back" / "config.json").read_text())["d_model"] > 0
