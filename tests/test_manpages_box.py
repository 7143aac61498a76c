"""From a trained checkpoint to the model in the package: what goes in, what stays out, and what the card says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_checkpoints import documents_of, lively_copy
from safetensors.torch import load_file
from transformers import GenerationConfig

from examples.manpages import demo_pages as demo
from examples.manpages.box import put as put_module
from examples.manpages.box.pack import SeenBox, hashes, pack
from examples.manpages.box.put import put
from examples.manpages.evaluation import results as results_module
from examples.manpages.evaluation.answering import answer, open_answering
from examples.manpages.evaluation.scores import AS_TRAINED
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.checkpoints.ready import CheckpointOptions, find_checkpoint
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.hub.entries import from_checkpoint
from lsg_fairseq.modules.lsg_config import LSGError

BASELINES = {"first_sentence": 26.0, "nearest_training_page": 34.0}


@pytest.fixture(scope="module")
def trained(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively_copy(checkpoints, tmp_path_factory.mktemp("lively-box")) / "checkpoint_best.pt"


@pytest.fixture(scope="module")
def box(trained: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("box") / "box"
    pack(trained, corpus / "tokenizer", folder)
    return folder


def results_of(box: Path, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """What examples.manpages.evaluation.results would say of a box, as far as it is read."""
    scores = {name: dict.fromkeys(("rouge1", "rouge2", "rougeL"), score) for name, score in BASELINES.items()}
    scores["as_trained"] = {"rouge1": 41.5, "rouge2": 22.25, "rougeL": 39.75}
    differences = {name: {"mean": 39.75 - score, "low": 1.5, "high": 9.5} for name, score in BASELINES.items()}
    figures = {"all": {"pages": 7, "scores": scores, "differences": differences}}
    found = {
        "box": hashes(box),
        "checkpoint": {"parameters": 1234567, "settings": {"source positions": 4096}},
        "sets": {"test_seen": figures, "test_unseen": figures},
        "target": {"test_seen": True, "test_unseen": False},
    }
    return found | (changes or {})


def write_results(tmp_path: Path, results: dict[str, Any]) -> Path:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    return path


# --- packing --------------------------------------------------------------------------------------------------------


def test_box_holds_the_model_in_half_precision(trained: Path, box: Path, corpus: Path) -> None:
    weights = load_file(box / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert json.loads((box / "config.json").read_text())["torch_dtype"] == "float16"
    boxed, whole = from_checkpoint(box), from_checkpoint(trained)
    for name, parameter in whole.model.encoder.named_parameters():
        assert torch.equal(boxed.model.encoder.get_parameter(name), parameter.half().float())
    texts = documents_of(corpus)[:3]
    assert all(isinstance(text, str) for text in boxed.summarize(texts))
    settings = boxed.generation_settings
    assert (settings.beam, settings.min_len, settings.max_len_b, settings.no_repeat_ngram_size) == (4, 1, 48, 3)


def test_packing_again_replaces_the_box(trained: Path, corpus: Path, tmp_path: Path) -> None:
    for _ in range(2):
        pack(trained, corpus / "tokenizer", tmp_path / "box")
        assert (tmp_path / "box" / "generation_config.json").is_file()
        (tmp_path / "box" / "left over").touch()
    pack(trained, corpus / "tokenizer", tmp_path / "box")
    assert not (tmp_path / "box" / "left over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["box"]


def test_what_float16_cannot_hold_is_refused(trained: Path, tmp_path: Path, corpus: Path) -> None:
    state = load_checkpoint_file(trained)
    state["model"]["decoder.layers.0.fc1.bias"][3] = 70000.0
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(LSGError, match=r"fc1.bias has a value of 70000, and float16 ends at 65504: export .* --half"):
        export_checkpoint(tmp_path / "checkpoint.pt", tmp_path / "hf", tokenizer=corpus / "tokenizer", half=True)
    assert not (tmp_path / "hf").exists()
    export_checkpoint(tmp_path / "checkpoint.pt", tmp_path / "hf", tokenizer=corpus / "tokenizer")


def test_results_are_of_what_the_box_says(box: Path, corpus: Path, tmp_path: Path) -> None:
    pages = [page("p", f"n{number}", 1) | {"document": text} for number, text in enumerate(documents_of(corpus)[:4])]
    run = open_answering(find_checkpoint(box, CheckpointOptions()), {"valid": pages}, tmp_path)
    said = answer(run.stages, "valid", AS_TRAINED, run.variants[AS_TRAINED].flags)
    summaries = from_checkpoint(box).summarize([record["document"] for record in pages])
    assert said == [text.strip() for text in summaries]


def test_results_read_a_box_as_it_is(box: Path, trained: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own tokenizer writes its answers, whichever one the other checkpoint has; its files may not change."""
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(results_module, "evaluate", lambda *given: asked.append(given))
    others = ["--short-model", str(trained), "--tokenizer", str(corpus / "tokenizer")]
    assert results_module.main(["--model", str(box), *others]) == 0
    [(files, _, choice, short)] = asked
    assert files.tokenizer.is_relative_to(find_checkpoint(box, CheckpointOptions()).model.parent)
    assert short.tokenizer == corpus / "tokenizer"
    assert choice.box == SeenBox(box, hashes(box))


def test_a_box_that_was_packed_again_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    seen = SeenBox.at(tmp_path)
    seen.check_unchanged()
    (tmp_path / "config.json").write_text('{"d_model": 8}')
    with pytest.raises(LSGError, match="was packed again meanwhile, so these results are of no use: run this again"):
        seen.check_unchanged()


# --- into the package -----------------------------------------------------------------------------------------------


def test_a_good_box_goes_into_the_package(box: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "stale.json").touch()
    put(box, write_results(tmp_path, results_of(box)), package)
    assert {path.name for path in package.iterdir()} == {*(path.name for path in box.iterdir()), "README.md", "LICENSE"}
    card = (package / "README.md").read_text()
    assert "1,234,567 parameters, 4,096 source tokens" in card
    assert "| test_unseen (7) | this model | 41.50 | 22.25 | 39.75 |  |" in card
    assert "| test_seen (7) | nearest training page's | 34.00 | 34.00 | 34.00 | 5.75 (1.50 to 9.50) |" in card
    assert "{" not in card
    assert hashes(package) == hashes(box)
    from_checkpoint(package)


def test_transformers_knows_how_to_generate(box: Path) -> None:
    settings = GenerationConfig.from_pretrained(box)
    assert (settings.decoder_start_token_id, settings.eos_token_id, settings.pad_token_id) == (2, 2, 1)
    assert (settings.num_beams, settings.max_length) == (4, 50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": {"test_seen": False, "test_unseen": True}}, "not surely better than both baselines on test_seen"),
        ({"target": {}}, "not surely better than both baselines on test_seen"),
        ({"box": {"model.safetensors": "0"}}, "the results are not of"),
        ({"box": None}, "the results are not of"),
    ],
)
def test_another_stays_out(box: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(LSGError, match=message):
        put(box, write_results(tmp_path, results_of(box, change)), tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_a_large_box_stays_out(box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(put_module, "LARGEST", 1000)
    with pytest.raises(LSGError, match=r"bytes and may have 1,000: train with a smaller vocabulary"):
        put(box, write_results(tmp_path, results_of(box)), tmp_path / "package")


def test_results_come_first(box: Path, tmp_path: Path) -> None:
    with pytest.raises(LSGError, match=r"there is no box in .*: run python -m examples.manpages.box.pack first"):
        put(tmp_path / "no", write_results(tmp_path, results_of(box)), tmp_path / "package")
    (tmp_path / "results.json").unlink()
    with pytest.raises(LSGError, match=r"results.json is missing: run python -m examples.manpages.evaluation.results"):
        put(box, tmp_path / "results.json", tmp_path / "package")


# --- the pages of the demo ------------------------------------------------------------------------------------------


def page(package: str, name: str, words: int) -> dict[str, str]:
    return {"document": "w " * words, "summary": "s", "name": name, "section": "1", "package": package}


def count(text: str) -> int:
    return len(text.split())


def test_one_long_page_of_each_package_is_drawn() -> None:
    pages = [page(package, name, words) for package in demo.LICENCES for name in "abcd" for words in (100, 2000, 9000)]
    chosen = demo.choose(pages, count)
    assert [record["package"] for record in chosen] == list(demo.LICENCES)
    assert {len(record["document"].split()) for record in chosen} == {2000}
    assert demo.choose(pages[::-1], count) == chosen
    assert len({record["name"] for record in chosen}) > 1
    with pytest.raises(LSGError, match=r"no page of bind9-utils with 1500 to 4094 tokens"):
        demo.choose(pages[len(pages) // len(demo.LICENCES) :], count)


def test_committed_pages_are_of_those_packages() -> None:
    records = [json.loads(line) for line in demo.PAGES.read_text(encoding="utf-8").splitlines()]
    assert {record["package"]: record["licence"] for record in records} == demo.LICENCES
    for record in records:
        assert len(record["document"].split()) <= demo.LONGEST  # a word is a token or more
        assert (demo.PAGES.parent / "licences" / f"{record['package']}.txt").stat().st_size
        assert record["summary"].lower() not in record["document"].lower()
