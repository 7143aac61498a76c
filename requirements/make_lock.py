"""Write lock.txt from lock.in with pip-tools, without torch and torchaudio (lock.in says why)."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = "--generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate".split()
# The lock must not name the index it was made with.
FLAGS += "--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --quiet".split()
HEADER = "# Made by `make lock` from lock.in: what `make` installs beside torch, with the hashes of its files.\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "lock.txt"
        subprocess.run([sys.executable, "-m", "piptools", "compile", *FLAGS, "-o", whole, HERE / "lock.in"], check=True)
        blocks = re.split(r"\n(?=[a-z0-9])", whole.read_text())
    kept = [b.rstrip() for b in blocks if "==" in b and not re.match(r"(torch|torchaudio)==", b)]
    (HERE / "lock.txt").write_text(HEADER + "\n".join(kept) + "\n")


if __name__ == "__main__":
    main()
