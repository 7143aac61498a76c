"""Long manual pages described in a line by the model in the package: what `make demo` runs. Nothing is downloaded.

The pages (examples/manpages/demo/) are of packages that the model never saw, drawn by a hash. What their authors say
of them stands beside what the model says.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = REPOSITORY / "examples" / "manpages" / "demo" / "pages.jsonl"
COMMAND = "lsg-summarize"
# The same command, also where the package is not installed.
SCRIPT = REPOSITORY / "scripts" / "summarize.py"
FIRST_LETTERS = 300


def main() -> None:
    """Describe the pages, and print a paragraph about each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    started = time.monotonic()
    pages = describe(PAGES)
    for page in pages:
        print("\n" + paragraph(page))
    words = sum(len(page["document"].split()) for page in pages)
    print(f"\n{len(pages)} pages, {words:,} words, in {time.monotonic() - started:.0f} seconds, loading included.")
    print("Yours:      lsg-summarize FILE...          any text file, of up to 4,096 tokens; `--help` for more")
    print("In Python:  torch.hub.load('.', 'lsg_bart_manpages', source='local', trust_repo=True).summarize(text)")
    print("The model is small and wrong at times: examples/manpages/README.md says how good it is and how it was made.")


def describe(pages: Path) -> list[dict[str, str]]:
    """The objects of a JSON Lines file, each with a `description`."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "described.jsonl"
        command = [COMMAND, pages.relative_to(REPOSITORY), "--jsonl", "--output", output.name]
        print(f"$ {shlex.join(map(str, command))}", flush=True)
        done = subprocess.run([sys.executable, SCRIPT, pages, "--jsonl", "--output", output], check=False)
        if done.returncode:
            sys.exit(f"demo: {COMMAND} failed with status {done.returncode}")
        answered = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    asked = [json.loads(line) for line in pages.read_text(encoding="utf-8").splitlines()]
    # The page's own summary stays, so what lsg-summarize says stands beside it.
    return [page | {"description": answer["generated_summary"]} for page, answer in zip(asked, answered, strict=True)]


def paragraph(page: dict[str, str]) -> str:
    """What is known of a page, and what is said of it."""
    beginning = " ".join(page["document"].split())[:FIRST_LETTERS]
    about = f"{page['name']}({page['section']}), {len(page['document'].split()):,} words, of {page['package']}"
    return f"{about}: {beginning} ...\n  author: {page['summary']}\n  model:  {page['description']}"


if __name__ == "__main__":
    main()
