"""250 ACL papers with their abstracts: the data files of PyPI's aclsum 0.1.2 (MIT licence), whose code never runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WHEEL = "aclsum==0.1.2 --hash=sha256:c75ffc48d3eabc5f37c68ea087943780a85950087957759e89746f21111f2213"


def fetch_papers(folder: Path) -> Path:
    """Download the wheel that carries the papers, checked by its hash; return its path."""
    wheel = folder / "aclsum-0.1.2-py3-none-any.whl"
    if not wheel.exists():
        print("Fetching 250 ACL papers (PyPI's aclsum, MIT licence, 5 MB) ...", flush=True)
        (folder / "papers.txt").write_text(WHEEL + "\n")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run(
            [*pip, "--require-hashes", "-r", folder / "papers.txt", "-d", folder], check=True, stderr=subprocess.PIPE
        )
    return wheel


def example_from_paper(paper: dict) -> dict[str, str] | None:
    """The body of a paper as the document, its abstract as the summary."""
    body = "\n".join(section["text"] for section in paper["pdf_parse"]["body_text"])
    if not body or not paper["abstract"]:
        return None
    return {"document": body, "summary": paper["abstract"], "title": paper["title"]}
