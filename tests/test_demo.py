"""`make demo`, `lsg-summarize` without a checkpoint and the hub entry: the model in the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, run
from safetensors import safe_open

from lsg_fairseq import hub
from lsg_fairseq.commands import summarize
from lsg_fairseq.commands.summarize import main
from lsg_fairseq.pretrained.published_checkpoints import IN_THE_BOX, PUBLISHED
from manpages.box.files import hashes
from manpages.box.put import LARGEST
from manpages.demo.choose import PAGES

BOX = Path(PUBLISHED[IN_THE_BOX].location)


def test_demo_describes_every_page() -> None:
    printed = run(sys.executable, REPOSITORY / "scripts" / "demo.py")
    pages = [json.loads(line) for line in PAGES.read_text(encoding="utf-8").splitlines()]
    for page in pages:
        about, author, model = printed[printed.index(f"{page['name']}({page['section']}), ") :].split("\n")[:3]
        assert page["package"] in about
        assert author == f"  author: {page['summary']}"
        assert len(model.removeprefix("  model:  ").split()) > 1
    assert f"no --checkpoint is named, so {IN_THE_BOX}" in printed
    assert f"{len(pages)} pages, " in printed


def test_entry_and_command_use_the_same_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.loads(PAGES.read_text(encoding="utf-8").splitlines()[-1])["document"][:1500]
    (tmp_path / "page.txt").write_text(text)
    assert main([str(tmp_path / "page.txt"), "--quiet"]) == 0
    unnamed = capsys.readouterr()
    assert main([str(tmp_path / "page.txt"), "--quiet", "--checkpoint", IN_THE_BOX]) == 0
    named = capsys.readouterr()
    assert unnamed.out.strip() == named.out.strip() == hub.lsg_bart_manpages().summarize(text)
    assert summarize.UNNAMED in unnamed.err
    assert summarize.UNNAMED not in named.err


def test_the_model_is_what_its_card_says() -> None:
    sizes = {path.name: path.stat().st_size for path in BOX.iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "vocab.txt"} <= set(sizes)
    assert sum(sizes.values()) <= LARGEST
    assert "licence" in (BOX / "README.md").read_text(encoding="utf-8")
    with safe_open(BOX / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} == {"F16"}  # noqa: SIM118
    assert PUBLISHED[IN_THE_BOX].max_source_positions == hub.lsg_bart_manpages().model.max_positions()[0]
    results = json.loads((REPOSITORY / "manpages" / "results" / "results.json").read_text())
    assert hashes(BOX) == results["box"]
    card = (BOX / "README.md").read_text(encoding="utf-8")
    for figures in results["sets"].values():
        assert f"{figures['all']['scores']['as_trained']['rougeL']:.2f}" in card


def test_an_installation_has_the_model(tmp_path: Path) -> None:
    """What setuptools would put into a wheel has every file of it."""
    run(sys.executable, "setup.py", "-q", "build_py", "--build-lib", tmp_path, cwd=REPOSITORY)
    built = tmp_path / BOX.relative_to(REPOSITORY)
    assert {path.name for path in built.iterdir()} == {path.name for path in BOX.iterdir()}
