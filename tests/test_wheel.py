"""A wheel installs and summarises where nothing is but what it asks for.

The environment is a fresh one. What the wheel requires is not downloaded but linked from the environment of the tests:
the packages that the metadata names, and those that they name, and no others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow
COMMANDS = ("lsg-average", "lsg-convert", "lsg-export", "lsg-preprocess", "lsg-summarize")
PAGE = "ls lists information about files. " * 40


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, made from a copy: setuptools takes up what an earlier build left beside it."""
    sources, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, files.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_bytes((REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, sources]
    subprocess.run(command, check=True)
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def described(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def required_by(message: Message) -> list[str]:
    """The distributions that a plain installation brings, in turn with what they require."""
    found: dict[str, metadata.Distribution] = {}
    waiting = list(message.get_all("Requires-Dist") or [])
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # torchaudio, which fairseq asks for and does without
            continue
        waiting += found[name].requires or []
    return sorted(found)


def link_packages(names: list[str], site_packages: Path) -> None:
    for name in names:
        distribution = metadata.distribution(name)
        tops = {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            link, target = site_packages / top, Path(distribution.locate_file(top)).resolve()
            if link.exists() or not target.exists():
                continue
            if top == "fairseq":  # it looks for --user-dir beside itself, and links are followed there
                shutil.copytree(target, link)
            else:
                link.symlink_to(target)


@pytest.fixture(scope="module")
def installed(wheel: Path, described: Message, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs, with the wheel and what it requires in the environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    paths = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
    site_packages, programs = Path(paths["purelib"]), Path(paths["scripts"])
    link_packages(required_by(described), site_packages)
    python = programs / "python"
    command = [sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True)
    return programs


def run_installed(programs: Path, folder: Path, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """A program of the environment, in a folder of its own: neither this checkout nor the user's caches are seen."""
    environment = {"PATH": f"{programs}{os.pathsep}/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [programs / command[0], *command[1:]], cwd=folder, env=environment, input=text, capture_output=True, text=True
    )


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    rooms = {name.split("/")[0] for name in names}
    assert {room.partition("-")[0] for room in rooms} == {"lsg_fairseq"}
    here = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "lsg_fairseq").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == here
    model = REPOSITORY / "lsg_fairseq" / "hub" / "lsg_bart_manpages"
    assert {path.relative_to(REPOSITORY).as_posix() for path in model.iterdir()} <= set(names)
    assert any(name.endswith("LICENSE") and ".dist-info/" in name for name in names)


def test_the_metadata_say_what_it_is(described: Message) -> None:
    assert (described["Name"], described["Version"]) == ("lsg-fairseq", metadata.version("lsg-fairseq"))
    assert described["License-Expression"] or described["License"]
    assert described["Description-Content-Type"] == "text/markdown"
    assert described.get_payload().strip() == (REPOSITORY / "README.md").read_text().strip()
    assert described["Requires-Python"]
    # Neither the tests' tools nor the peers of the benchmarks come with a plain installation.
    assert not {"pytest", "transformers", "matplotlib"} & set(required_by(described))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_tell_how_they_are_used(command: str, installed: Path, tmp_path: Path) -> None:
    done = run_installed(installed, tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {command}")


def test_an_installation_summarises(installed: Path, tmp_path: Path) -> None:
    done = run_installed(installed, tmp_path, "lsg-summarize", text=PAGE)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 1


def test_fairseq_finds_an_installation(installed: Path, tmp_path: Path) -> None:
    """`--user-dir lsg_fairseq` from any folder; the package is the wheel's, not this checkout."""
    code = "import lsg_fairseq; print(lsg_fairseq.__file__)"
    done = run_installed(installed, tmp_path, "python", "-c", code)
    assert Path(done.stdout.strip()).is_relative_to(installed.parent), done.stderr
    # Without data: how the command is used is printed, with the flags of the architecture.
    flags = "--user-dir lsg_fairseq --arch lsg_bart_large --task lsg_summarization".split()
    done = run_installed(installed, tmp_path, "python", "-m", "fairseq_cli.train", *flags)
    assert "--lsg-block-size" in done.stderr
    assert "arguments are required: data" in done.stderr
