"""Lines of code of the package, room by room: docstrings, comments and blank lines do not count.

python -m benchmarks.code_lines [REVISION ...] [--folder lsg_fairseq]

Without a revision: of the working tree. A line counts if a token of a statement is on it, so a string of several lines
that is no docstring counts with all of them.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", metavar="REVISION", help="commits (default: the working tree)")
    parser.add_argument("--folder", default="lsg_fairseq", metavar="DIR", help="default: %(default)s")
    args = parser.parse_args()
    for revision in args.revisions or [None]:
        counts = {name: code_lines(text) for name, text in sources(args.folder, revision).items()}
        rooms = Counter()
        for name, count in counts.items():
            rooms[Path(name).relative_to(args.folder).parts[0]] += count
        for room, count in sorted(rooms.items()):
            print(f"{count:>7,}  {room}")
        where = revision or "the working tree"
        print(f"{sum(counts.values()):>7,}  in {len(counts)} files of {args.folder} at {where}")


def sources(folder: str, revision: str | None) -> dict[str, str]:
    """The text of each Python file, by its path."""
    if revision is None:
        paths = sorted((HERE / folder).rglob("*.py"))
        return {path.relative_to(HERE).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    listed = git("ls-tree", "-r", "--name-only", revision, "--", folder).splitlines()
    return {name: git("show", f"{revision}:{name}") for name in listed if name.endswith(".py")}


def git(*words: str) -> str:
    """What a git command prints."""
    return subprocess.run(["git", *words], cwd=HERE, check=True, capture_output=True, text=True).stdout


def code_lines(text: str) -> int:
    """How many lines of a module have code on them."""
    documentation = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            documentation.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


if __name__ == "__main__":
    main()
