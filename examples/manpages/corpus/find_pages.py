"""Where manual pages come from: Debian packages, read without unpacking them, or a folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from examples.manpages.corpus.pages import MAX_BYTES, Package, RawPage
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError

# --- Debian packages: fetched by apt-get, which checks their signatures, and read without being unpacked --------------

MEMBER = re.compile(r"(\./)?usr/share/man/([^/]+/)?man[^/]+/[^/]+")
# For root apt fetches as the user _apt, who may not be able to enter our folder: apt would warn, and go on as root.
# What it believes does not depend on that: it checks lists by their signatures, and packages by the hashes in them.
NO_SANDBOX = ("-o", "APT::Sandbox::User=root")
BATCH = 20  # packages a call of apt-get, so that an interrupted run keeps most of what it fetched


def read_package_names(path: Path) -> list[str]:
    """The names in a file: any number a line, `#` to the end of a line is a comment.

    Raises:
        LSGError: no such file, no name in it, or a name that Debian does not allow.
    """
    if not path.is_file():
        raise LSGError(f"the list of packages {path} does not exist")
    names = [name for line in path.read_text(encoding="utf-8").splitlines() for name in line.partition("#")[0].split()]
    for name in names:
        # A name must never be read as an option of apt-get.
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise LSGError(f"{path}: {name!r} is no name of a Debian package: lower case letters, digits, + . and -")
    if not names:
        raise LSGError(f"{path} names no package")
    return list(dict.fromkeys(names))


def fetch_packages(names: Sequence[str], folder: Path) -> tuple[list[Path], list[str]]:
    """The packages' files, those already in `folder` reused, and the names that this release of Debian lacks.

    Raises:
        LSGError: apt or dpkg-deb is missing, a download failed, or there is no package at all.
    """
    check_tools("dpkg-deb")
    missing = [name for name in names if not downloaded(name, folder)]
    unknown = sorted(set(missing) - available_packages(missing)) if missing else []
    if len(unknown) == len(names):
        raise LSGError(f"apt knows none of the packages ({', '.join(unknown[:3])} ...): run `apt-get update` first")
    to_fetch = [name for name in missing if name not in unknown]
    with tqdm(total=len(to_fetch), desc="fetching packages", unit="package", disable=not to_fetch) as bar:
        for start in range(0, len(to_fetch), BATCH):
            batch = to_fetch[start : start + BATCH]
            _download(batch, folder)
            bar.update(len(batch))
    return [_file_of(name, folder) for name in names if name not in unknown], unknown


def check_tools(*tools: str) -> None:
    """Raise LSGError if one of Debian's tools is missing."""
    for tool in tools:
        if not shutil.which(tool):
            raise LSGError(f"{tool} was not found: packages can be fetched on Debian only; name a folder of pages")


def available_packages(names: Sequence[str]) -> set[str]:
    """Those of the names that apt could download.

    Raises:
        LSGError: apt is missing.
    """
    check_tools("apt-cache", "apt-get")
    done = subprocess.run(["apt-cache", "show", "--no-all-versions", "--", *names], capture_output=True, text=True)
    return set(re.findall(r"^Package: (\S+)$", done.stdout, re.MULTILINE))


def downloaded(name: str, folder: Path) -> list[Path]:
    """The files of this package in the folder, of every version."""
    return sorted(folder.glob(f"{name}_*.deb"))


def _file_of(name: str, folder: Path) -> Path:
    found = downloaded(name, folder)
    if len(found) != 1:
        raise LSGError(f"{folder} holds {len(found)} files of the package {name}, not one: delete what is too much")
    return found[0]


def _download(names: Sequence[str], folder: Path) -> None:
    command = ["apt-get", "-qq", *NO_SANDBOX, "download", "--", *names]
    with staged_output(folder) as aside:
        done = subprocess.run(command, cwd=aside, capture_output=True, text=True)
        if done.returncode:
            words = done.stderr.strip() or f"exit status {done.returncode}"
            raise LSGError(f"apt-get could not download packages ({words}): try again, or run `apt-get update` first")


def describe_package(path: Path) -> Package:
    """Name, version and source package of a .deb.

    Raises:
        LSGError: dpkg-deb cannot read it.
    """
    command = ["dpkg-deb", "--show", "--showformat=${Package}\n${Version}\n${source:Package}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LSGError(f"{path} cannot be read ({done.stderr.strip()}): delete it, and it is fetched again")
    return Package(*done.stdout.splitlines())


def pages_of_package(path: Path) -> Iterator[RawPage]:
    """Everything below usr/share/man in a .deb, read in memory: nothing it names is ever written or followed.

    Raises:
        LSGError: the file is damaged.
    """
    package = describe_package(path)
    command = ["dpkg-deb", "--fsys-tarfile", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
                for member in archive:
                    if MEMBER.fullmatch(member.name) and not member.isdir():
                        content = archive.extractfile(member).read(MAX_BYTES + 1) if member.isreg() else None
                        yield RawPage(package, PurePosixPath(member.name), content)
        except tarfile.TarError as error:
            raise LSGError(f"{path} is damaged ({error}): delete it, and it is fetched again") from error


# --- a folder of pages ------------------------------------------------------------------------------------------------


def pages_of_folder(folder: Path) -> Iterator[list[RawPage]]:
    """The pages below FOLDER, package by package: every file in a folder named man*.

    The first folder below FOLDER is the package; pages whose man* lies in FOLDER itself are of a package called as it.

    Raises:
        LSGError: no such folder, or no page in it.
    """
    if not folder.is_dir():
        raise LSGError(f"the folder of manual pages {folder} does not exist")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("man*/*")):
        if path.is_symlink() or path.is_file():
            found.setdefault(package_of(path, folder), []).append(path)
    if not found:
        raise LSGError(f"{folder} has no manual page: files such as man1/ls.1 or git-man/man1/git.1.gz")
    for name in sorted(found):
        package = Package(name, source=name)
        yield [RawPage(package, path, content_of(path)) for path in found[name]]


def content_of(path: Path) -> bytes | None:
    """A file's bytes, up to one more than allowed; None for a link, which may lead anywhere and is never followed."""
    if path.is_symlink():
        return None
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def package_of(path: Path, folder: Path) -> str:
    """The name of a page's package."""
    above = path.relative_to(folder).parts[:-2]
    return above[0] if above else folder.resolve().name
