"""Roff source -> sections of clean text, by mandoc: it reads man and mdoc, and neither hyphenates nor justifies."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from examples.manpages.corpus.debian import fetch_packages
from examples.manpages.corpus.pages import Reason, UnusablePage
from lsg_fairseq.modules.lsg_config import LSGError

WIDTH = 1000  # the widest that mandoc allows: few paragraphs are broken at all
BROKEN = 900  # longer lines were broken by mandoc, shorter ones by the author
TIMEOUT = 60  # seconds
# What mandoc passes over without harm to the text around it: fonts in tables, groff's compatibility mode.
HARMLESS = ("ignoring macro in table", "unsupported roff request: do")
OVERSTRIKE = re.compile(r".\x08")
# Frames of tables, and lines drawn with characters.
RULE = re.compile(r"[\u2500-\u257f]|([_=*~-])\1{7,}")
CHARACTERS = str.maketrans(
    {"\u00a0": " ", "\u2010": "-", "\u2011": "-", "\u2212": "-", "\u2018": "'", "\u2019": "'", "\u201c": '"'}
    | {"\u201d": '"', "\u27e8": "<", "\u27e9": ">", "\u00ad": None, "\u200b": None, "\ufeff": None}
)


@dataclass(frozen=True)
class Section:
    """A heading and its paragraphs. A paragraph has one line unless the author kept lines apart."""

    heading: str
    paragraphs: list[str]


def find_mandoc(folder: Path) -> Path:
    """mandoc as installed, else Debian's package of it, unpacked below `folder`; neither needs root.

    Raises:
        LSGError: it is neither installed nor to be had.
    """
    if installed := shutil.which("mandoc"):
        return Path(installed)
    binary = folder / "mandoc" / "usr" / "bin" / "mandoc"
    if not binary.exists():
        try:
            [package], _ = fetch_packages(["mandoc"], folder)
        except LSGError as error:
            raise LSGError(f"mandoc, which renders the pages, is not installed: install it ({error})") from error
        subprocess.run(["dpkg-deb", "--extract", str(package), str(folder / "mandoc")], check=True)
    return binary


def render(roff: bytes, mandoc: Path) -> str:
    """The page as text with overstrikes (x BACKSPACE x is bold), a paragraph of up to WIDTH characters a line.

    Raises:
        UnusablePage: mandoc knows that it does not support what the page uses, or it crashes or takes too long.
    """
    command = [str(mandoc), "-T", "utf8", "-O", f"width={WIDTH}", "-W", "unsupp"]
    try:
        done = subprocess.run(command, input=roff, capture_output=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise UnusablePage(Reason.UNSUPPORTED) from error
    messages = [line for line in done.stderr.decode(errors="replace").splitlines() if "UNSUPP: " in line]
    if done.returncode < 0 or any(not message.partition("UNSUPP: ")[2].startswith(HARMLESS) for message in messages):
        raise UnusablePage(Reason.UNSUPPORTED)
    return done.stdout.decode("utf-8", errors="replace")


def read_sections(rendered: str) -> list[Section]:
    """The sections of a rendered page, without its header and footer."""
    lines = rendered.split("\n")
    filled = [number for number, line in enumerate(lines) if line.strip()]
    sections: list[tuple[str, list[str]]] = []
    for line in lines[filled[0] + 1 : filled[-1]] if filled else []:
        if is_heading(line):
            sections.append((clean_line(line), []))
        elif sections:
            sections[-1][1].append(line)
    return [Section(heading, paragraphs_of(body)) for heading, body in sections]


def is_heading(line: str) -> bool:
    """Headings of sections, and hardly anything else, are bold and not indented."""
    return len(line) > 2 and line[1] == "\x08" and line[0] == line[2] != " "


def paragraphs_of(lines: list[str]) -> list[str]:
    """Lines between blank ones make a paragraph; those that mandoc broke are one line again."""
    paragraphs: list[list[str]] = [[]]
    was_broken = False
    for line in lines:
        plain = OVERSTRIKE.sub("", line).rstrip()
        clean = clean_line(line)
        if was_broken and clean:
            joint = "" if paragraphs[-1][-1].endswith("-") else " "
            paragraphs[-1][-1] += joint + clean
        elif clean:
            paragraphs[-1].append(clean)
        elif not plain:
            paragraphs.append([])
        was_broken = bool(clean) and len(plain) > BROKEN
    return ["\n".join(paragraph) for paragraph in paragraphs if paragraph]


def clean_line(line: str) -> str:
    """A line without overstrikes, drawn lines and typographers' characters, with single spaces."""
    plain = RULE.sub(" ", OVERSTRIKE.sub("", line))
    return " ".join(plain.translate(CHARACTERS).split())
