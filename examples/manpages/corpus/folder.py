"""Manual pages that lie in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from examples.manpages.corpus.pages import MAX_BYTES, Package, RawPage
from lsg_fairseq.modules.lsg_config import LSGError


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
