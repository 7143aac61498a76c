"""What the public LSG-mBART computes (benchmarks/make_mbart_reference.py), and transformers' short one, reproduced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_models import load_converted
from safetensors.torch import load_file
from torch import Tensor, nn

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.generation import LSGSequenceGenerator
from lsg_fairseq.hub.entries import from_checkpoint
from lsg_fairseq.modules import sparse_tokens
from lsg_fairseq.tokenizers.fairseq_bpe import embedding_rows, load_tokenizer

FOLDER = Path(__file__).parent / "data" / "mbart_reference"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
ENCODER_TOLERANCE, LOGITS_TOLERANCE = 2e-5, 1e-4
MODELS = ["mbart25", "mbart50", "barthez"]
models = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def arrays() -> dict[str, Tensor]:
    return load_file(FOLDER / "cases.safetensors")


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each short model as an LSG model of the references' length."""
    out = tmp_path_factory.mktemp("converted")
    for name in MODELS:
        convert_checkpoint(FOLDER / name, out / name, MANIFEST["positions"], MANIFEST["positions"])
    return {name: out / name for name in MODELS}


def load(folder: Path, **lsg: Any) -> tuple[Any, nn.Module, Tensor]:
    """Task, model and the dictionary's row of each Hugging Face id."""
    files = CheckpointFiles(folder / "model.pt", folder, folder / "tokenizer")
    task, model, tokenizer = load_task_and_model(files, Overrides(lsg))
    return task, model, embedding_rows(tokenizer, task.source_dictionary)


@torch.no_grad()
@pytest.mark.parametrize("case", MANIFEST["cases"], ids=lambda case: case["name"])
def test_outputs(
    case: dict[str, Any], arrays: dict[str, Tensor], converted: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoder rows of globals and real tokens, all logits, and beam 3."""
    given = {key.split(".")[1]: value for key, value in arrays.items() if key.startswith(f"{case['name']}.")}
    stored = iter([given[f"randn_{i}"][0, :, 0] for i in range(sum(key.startswith("randn") for key in given))])
    if case["settings"]["sparsity_type"] == "lsh":
        monkeypatch.setattr(sparse_tokens, "draw_projections", lambda *_: next(stored))
    task, model, rows = load(converted[case["model"]], **case["settings"])
    source, previous = rows[given["input_ids"].long()], rows[given["decoder_input_ids"].long()]
    encoded = model.encoder(source)
    logits, _ = model.decoder(previous, encoder_out=encoded)
    num_globals = given["hidden"].size(1) - source.size(1)
    kept = nn.functional.pad(given["attention_mask"].bool(), (num_globals, 0), value=True)
    difference = (encoded["encoder_out"][0].transpose(0, 1) - given["hidden"])[kept]
    assert difference.abs().max() <= ENCODER_TOLERANCE
    assert (logits[..., rows] - given["logits"]).abs().max() <= LOGITS_TOLERANCE
    assert next(stored, None) is None
    if "beam3" in given:
        assert beam3(task, model, source) == [rows[ids[ids.ne(1)].long()].tolist()[1:] for ids in given["beam3"]]


def beam3(task: Any, model: nn.Module, source: Tensor) -> list[list[int]]:
    """The best hypotheses, as far as fairseq's limits say what transformers' do."""
    beam, spoken = MANIFEST["beam"], task.sequence_format
    first = spoken.forced_first()
    generator = LSGSequenceGenerator(
        [model],
        task.target_dictionary,
        spoken.start(),
        forced_first_token=None if first is None else task.target_dictionary.index(first),
        forced_last_token=2,
        beam_size=beam["num_beams"],
        min_len=beam["min_length"] - 1,
        max_len_b=beam["max_length"] - 2,
    )
    return [best["tokens"].tolist() for best, *_ in generator.generate([model], {"net_input": {"src_tokens": source}})]


@models
def test_global_tables_are_the_public_converters(
    name: str, arrays: dict[str, Tensor], converted: dict[str, Path]
) -> None:
    model = load(converted[name])[1]
    assert torch.equal(model.encoder.global_embeddings.weight, arrays[f"{name}.globals"])


@models
def test_text_to_ids(name: str, converted: dict[str, Path]) -> None:
    """transformers' own sentencepiece tokenizers, with what they put around a text."""
    hub = from_checkpoint(converted[name])
    rows = embedding_rows(hub.tokenizer, hub.task.source_dictionary)
    for text, ids in zip(MANIFEST["texts"], MANIFEST["ids"][name], strict=True):
        assert hub.encode(text).tolist() == rows[torch.tensor(ids)].tolist()
        assert hub.decode(hub.encode(text)) == text


@models
def test_exported_back_bit_for_bit(name: str, converted: dict[str, Path], tmp_path: Path) -> None:
    """To the short original, and from an LSG export to the same converted weights."""
    export_checkpoint(converted[name], tmp_path / "short", short=True)
    original = load_file(FOLDER / name / "model.safetensors")
    exported = load_file(tmp_path / "short" / "model.safetensors")
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[key], original[key]) for key in original)
    config, before = (json.loads((f / "config.json").read_text()) for f in (tmp_path / "short", FOLDER / name))
    assert {key: config[key] for key in before if key != "transformers_version"} == {
        key: value for key, value in before.items() if key != "transformers_version"
    }
    export_checkpoint(converted[name], tmp_path / "lsg")
    assert json.loads((tmp_path / "lsg" / "config.json").read_text())["architectures"] == [
        "LSGMBartForConditionalGeneration"
    ]
    convert_checkpoint(tmp_path / "lsg", tmp_path / "again")
    one, other = (load(folder)[1].state_dict() for folder in (converted[name], tmp_path / "again"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    formats = [(f / "sequence_format.json").read_text() for f in (converted[name], tmp_path / "again")]
    assert formats[0] == formats[1]


@torch.no_grad()
@models
def test_short_models_equal_transformers(name: str, tmp_path: Path) -> None:
    """With full attention and the global key hidden: what is left is transformers' own short model."""
    import transformers

    theirs = transformers.MBartForConditionalGeneration.from_pretrained(FOLDER / name, attn_implementation="eager")
    convert_checkpoint(FOLDER / name, tmp_path / "out", lsg={"attention": "full"})
    model, rows = load_converted(tmp_path / "out")
    hide_globals(model)
    ids = torch.randint(5, 30, (2, 40), generator=torch.Generator().manual_seed(1))
    ids[1, 25:] = 1
    mask = ids.ne(1)
    previous = torch.randint(5, 30, (2, 6), generator=torch.Generator().manual_seed(2))
    expected = theirs.eval()(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=previous)
    encoded = model.encoder(rows[ids])
    logits, _ = model.decoder(rows[previous], encoder_out=encoded)
    found = encoded["encoder_out"][0].transpose(0, 1)[:, -40:]
    assert (found - expected.encoder_last_hidden_state)[mask].abs().max() <= ENCODER_TOLERANCE
    assert (logits[..., rows] - expected.logits).abs().max() <= LOGITS_TOLERANCE


def hide_globals(model: nn.Module) -> None:
    """Let nothing see the one global key, in the encoder or from the decoder."""
    padding_mask = model.encoder.padding_mask
    model.encoder.padding_mask = lambda tokens: padding_mask(tokens).index_fill(1, torch.tensor([0]), True)


def test_tokenizers_read_language_codes_in_texts() -> None:
    """As transformers' tokenizers do; a text comes back as it was."""
    tokenizer = load_tokenizer(FOLDER / "mbart25")
    assert "[ro_RO]" in tokenizer.encode("a mat ro_RO <mask>")
    assert "<mask>" in tokenizer.encode("a mat ro_RO <mask>")
