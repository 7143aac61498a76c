"""`make walkthrough`: from papers to ROUGE by the commands that the README names, here with a few made-up papers."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

from conftest import REPOSITORY, WORDS, run

WHEEL = "aclsum-0.1.2-py3-none-any.whl"


def write_wheel(path: Path, papers: int) -> None:
    """What PyPI's wheel has of its papers; one lacks its abstract."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(papers):
            text = " ".join(WORDS[(number + place) % len(WORDS)] for place in range(150))
            body = [{"text": text}, {"text": text.title()}]
            paper = {
                "title": f"On {text[:9]}",
                "abstract": "" if number == 1 else text[:80],
                "pdf_parse": {"body_text": body},
            }
            archive.writestr(f"aclsum/data/paper_jsons/{number:03}.json", json.dumps(paper))


def test_walkthrough(tmp_path: Path) -> None:
    write_wheel(tmp_path / WHEEL, 31)
    printed = run(
        sys.executable,
        "-m",
        "examples.walkthrough",
        "--folder",
        tmp_path,
        "--minutes",
        0.03,
        "--papers",
        30,
        cwd=REPOSITORY,
    )
    sizes = {name: len((tmp_path / f"{name}.jsonl").read_text().splitlines()) for name in ("train", "valid", "test")}
    assert sizes == {"train": 23, "valid": 3, "test": 3}  # 30 without the one that has no abstract
    for command in ("$ lsg-preprocess", "$ fairseq-train", "$ fairseq-generate"):
        assert command in printed
    assert "Generate test with beam=4: ROUGE" in printed
    assert "Summary: " in printed
    assert (tmp_path / "checkpoints" / "checkpoint_best.pt").is_file()
    assert "All of it took" in printed
