"""One page -> one example, or the reason why not."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from examples.manpages.corpus.find_pages import fetch_packages
from examples.manpages.corpus.pages import Example, RawPage, Reason, UnusablePage, name_and_section, source_of
from lsg_fairseq.modules.lsg_config import LSGError

# --- roff source -> sections of clean text, by mandoc: it reads man and mdoc, and neither hyphenates nor justifies ----

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


# --- one page -> one example, or the reason why not -------------------------------------------------------------------

# --- the NAME section: `names - description` --------------------------------------------------------------------------

HEADINGS = ("NAME", "NAMES")
# The dash of mdoc is an en dash; pages by hand also have two hyphens or an em dash, and some miss a space.
SEPARATOR = re.compile(r"\s+(?:--?|\u2013|\u2014)\s+|\s+[-\u2013\u2014](?=[A-Za-z])|(?<=\w)--?\s+")


def is_name_section(section: Section) -> bool:
    """Whether this is NAME, however it is capitalised."""
    return section.heading.upper() in HEADINGS


def parse_name_section(sections: list[Section]) -> tuple[list[str], str]:
    """The page's names and its description, which are in the first paragraph; others hold remarks.

    Raises:
        UnusablePage: there is no NAME section, or it has not exactly one description.
    """
    found = [section for section in sections if is_name_section(section)]
    if not found:
        raise UnusablePage(Reason.NO_NAME)
    lines = found[0].paragraphs[0].split("\n") if found[0].paragraphs else []
    names, *rest = SEPARATOR.split(" ".join(lines), maxsplit=1)
    if not names or not rest or not rest[0] or sum(bool(SEPARATOR.search(line)) for line in lines) > 1:
        raise UnusablePage(Reason.NO_DESCRIPTION)
    return [name for name in re.split(r"[,\s]+", names) if name], rest[0].strip()


# --- taking the description out of the text that it is to be written from ---------------------------------------------

SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+")
CUT = "\x00"
FEWEST_WORDS_LEFT = 4  # what is left of a sentence without the description is dropped if it has fewer


def copies_of(description: str) -> re.Pattern[str]:
    """A pattern for the description, whatever its capitals, line breaks and last full stop."""
    words = description.rstrip(" .!?;:,").split()
    return re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)


def without_copies(paragraph: str, copies: re.Pattern[str]) -> str:
    """The paragraph with no copy in it; sentences that hardly said more go altogether ("ls - list files.")."""
    while copies.search(paragraph):
        lines = copies.sub(CUT, paragraph).split("\n")
        paragraph = "\n".join(filter(None, map(_close_gaps, lines)))
    return paragraph


def _close_gaps(line: str) -> str:
    if CUT not in line:
        return line
    return " ".join(filter(None, (_rest_of(sentence) for sentence in SENTENCE_END.split(line))))


def _rest_of(sentence: str) -> str:
    if CUT not in sentence:
        return sentence
    rest = sentence.replace(CUT, " ")
    return " ".join(rest.split()) if len(re.findall(r"\w[\w'-]*", rest)) >= FEWEST_WORDS_LEFT else ""


# --- one page -> one example, or the reason why not -------------------------------------------------------------------

DESCRIPTION_WORDS = (3, 40)
FEWEST_BODY_WORDS = 50
# The commonest English words that no other European language shares a good part of.
ENGLISH = frozenset("the of and to is for in this with that are be it as if by not from or an which you can".split())
LEAST_ENGLISH = 0.05


def example_of(page: RawPage, mandoc: Path) -> Example | Reason:
    """The example that a page gives, or why it gives none."""
    try:
        name, section = name_and_section(page.path)
        sections = read_sections(render(source_of(page), mandoc))
        _, summary = parse_name_section(sections)
        check_description(summary)
        document = body_without(sections, summary)
        check_body(document)
    except UnusablePage as unusable:
        return unusable.reason
    return Example(document, summary, name, section, page.package.name, page.package.source)


def body_without(sections: list[Section], summary: str) -> str:
    """All sections but NAME, paragraphs and headings a blank line apart, with no copy of the description in them."""
    copies = copies_of(summary)
    blocks: list[str] = []
    for section in sections:
        kept = [text for paragraph in section.paragraphs if (text := without_copies(paragraph, copies))]
        if kept and not is_name_section(section):
            blocks += [text for text in (without_copies(section.heading, copies), *kept) if text]
    document = "\n\n".join(blocks)
    while copies.search(document):  # one that runs on from a paragraph to the next
        document = copies.sub("", document)
    return document


def check_description(summary: str) -> None:
    """Raise UnusablePage if a description has too few or too many words."""
    fewest, most = DESCRIPTION_WORDS
    count = len(re.findall(r"\w[\w'-]*", summary))
    if count < fewest:
        raise UnusablePage(Reason.SHORT_DESCRIPTION)
    if count > most:
        raise UnusablePage(Reason.LONG_DESCRIPTION)


def check_body(document: str, fewest: int = FEWEST_BODY_WORDS) -> None:
    """Raise UnusablePage if a body has fewer words than that, or is not English."""
    words = re.findall(r"[^\W\d_]+", document.lower())
    if len(words) < fewest:
        raise UnusablePage(Reason.SHORT_BODY)
    if sum(word in ENGLISH for word in words) < LEAST_ENGLISH * len(words):
        raise UnusablePage(Reason.NOT_ENGLISH)
