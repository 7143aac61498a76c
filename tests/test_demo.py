"""`make demo`, `lsg-summarize` without a checkpoint and the hub entry: the model in the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, run
from safetensors import safe_open

from examples.manpages.box.pack import hashes
from examples.manpages.box.put import APACHE, LARGEST, model_card
from examples.manpages.demo_pages import PAGES
from lsg_fairseq import hub
from lsg_fairseq.commands import summarize
from lsg_fairseq.commands.summarize import main
from lsg_fairseq.hub.entry_checkpoints import DEFAULT_ENTRY, ENTRY_CHECKPOINTS
from lsg_fairseq.scoring import rouge_scores

BOX = Path(ENTRY_CHECKPOINTS[DEFAULT_ENTRY].location)


def test_demo_describes_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody is there: nothing may be downloaded
    printed = run(sys.executable, "-m", "examples.demo", cwd=REPOSITORY)
    pages = [json.loads(line) for line in PAGES.read_text(encoding="utf-8").splitlines()]
    said = []
    for page in pages:
        about, author, model = printed[printed.index(f"{page['name']}({page['section']}), ") :].split("\n")[:3]
        assert page["package"] in about
        assert author == f"  author: {page['summary']}"
        assert model.startswith("  model:  ")
        said.append(model.removeprefix("  model:  "))
    assert said != [page["summary"] for page in pages], "what the authors say is not the model's"
    # Each is about its own page: it shares more with what the author of that page says than of the others.
    scores = [[rouge_scores(page["summary"], text)["rougeL"] for text in said] for page in pages]
    own = sum(scores[number][number] for number in range(len(pages)))
    assert own / len(pages) > 3 * (sum(map(sum, scores)) - own) / (len(pages) * (len(pages) - 1))
    assert f"no --checkpoint is given, so {DEFAULT_ENTRY}" in printed
    assert f"{len(pages)} pages, " in printed


def test_entry_and_command_use_the_same_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.loads(PAGES.read_text(encoding="utf-8").splitlines()[-1])["document"][:1500]
    (tmp_path / "page.txt").write_text(text)
    assert main([str(tmp_path / "page.txt"), "--quiet"]) == 0
    unnamed = capsys.readouterr()
    assert main([str(tmp_path / "page.txt"), "--quiet", "--checkpoint", DEFAULT_ENTRY]) == 0
    named = capsys.readouterr()
    assert unnamed.out.strip() == named.out.strip() == hub.lsg_bart_manpages().summarize(text)
    assert summarize.UNNAMED in unnamed.err
    assert summarize.UNNAMED not in named.err


def test_a_folder_of_an_entrys_name_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT_ENTRY).mkdir()
    (tmp_path / "page.txt").write_text("A page about something.")
    assert main(["page.txt", "--quiet", "--checkpoint", DEFAULT_ENTRY]) == 1
    assert f"write ./{DEFAULT_ENTRY} for the path" in capsys.readouterr().err
    assert main(["page.txt", "--quiet", "--checkpoint", f"./{DEFAULT_ENTRY}"]) == 1
    assert "holds no checkpoint" in capsys.readouterr().err
    assert main(["page.txt", "--quiet"]) == 0  # the model in the package, not that folder


def test_the_model_is_what_its_card_says() -> None:
    sizes = {path.name: path.stat().st_size for path in BOX.iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "LICENSE", "vocab.txt"} <= set(sizes)
    assert sum(sizes.values()) <= LARGEST
    assert (BOX / "LICENSE").read_bytes() == APACHE.read_bytes()
    with safe_open(BOX / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118
    assert ENTRY_CHECKPOINTS[DEFAULT_ENTRY].max_source_positions == hub.lsg_bart_manpages().model.max_positions()[0]
    results = json.loads((REPOSITORY / "examples" / "manpages" / "results" / "results.json").read_text())
    assert hashes(BOX) == results["box"]
    assert (BOX / "README.md").read_text(encoding="utf-8") == model_card(results)


def test_an_installation_has_the_model(tmp_path: Path) -> None:
    """What setuptools would put into a wheel has every file of it."""
    run(sys.executable, "setup.py", "-q", "build_py", "--build-lib", tmp_path, cwd=REPOSITORY)
    built = tmp_path / BOX.relative_to(REPOSITORY)
    assert {path.name for path in built.iterdir()} == {path.name for path in BOX.iterdir()}
    assert hashes(built) == hashes(BOX)
