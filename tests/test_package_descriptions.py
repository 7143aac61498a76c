"""Descriptions of packages as examples: how they are read, what is dropped, and that nothing held out is left."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import REPOSITORY, run

from examples.manpages.corpus.examples import copies_of
from examples.manpages.corpus.pages import FIELDS, Example, Package, Reason, UnusablePage
from examples.manpages.corpus.selection import MOST_SHARING
from examples.manpages.corpus.similarity import contained_in_any
from examples.manpages.descriptions.examples import (
    FEWEST_WORDS,
    example_of_package,
    paragraphs_of_description,
    read_examples,
    shared_moulds,
    without_boilerplate,
    without_packaging,
)
from examples.manpages.descriptions.lists import Description, PackageLists, fetch_lists, read_descriptions, read_sources
from examples.manpages.descriptions.prepare import prepare_descriptions
from examples.manpages.descriptions.selection import HeldOut, hold_out, select_descriptions
from lsg_fairseq.modules.lsg_config import LSGError

TRANSLATION = """\
Package: sweep
Description-md5: d943033bedada21853d2ae54a2578a7b
Description-en: clean the floor of a room
 Sweep moves the dust of a room into one
 corner, and the state-of-
 the-art broom is put away.
 .
 Features:
  * no noise, not even
    at night
  * nothing is lost
   - in summer
 Sold as it is.

Package: sweep-doc
Description-en: clean the floor of a room (documentation)
 This is the manual.
"""
PACKAGES = """\
Package: sweep
Version: 1
Depends: a,
 b

Package: sweep-doc
Source: sweeping (1:2-3)

"""
NOTHING_HELD_OUT = HeldOut(frozenset(), [])
WORDS = "a an of file page list sort print write read copy move and the is are with for from into line word".split()


def prose(seed: int, count: int = 40) -> str:
    return " ".join(random.Random(seed).choices([f"{word}{n}" for word in WORDS for n in ("", "", "s")], k=count)) + "."


def example(package: str, document: str, summary: str, source: str = "") -> Example:
    return Example(document, summary, package, "package", package, source or package)


def kept_packages(examples: Sequence[Example], held_out: HeldOut = NOTHING_HELD_OUT) -> tuple[set[str], dict]:
    splits, dropped = select_descriptions(examples, held_out)
    return {e.package for chosen in splits.values() for e in chosen}, dropped


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- lists ----------------------------------------------------------------------------------------------------------


def test_descriptions_and_sources_are_read(tmp_path: Path) -> None:
    first, second = read_descriptions(write(tmp_path / "Translation-en", TRANSLATION))
    assert (first.package, first.synopsis, first.extended[0]) == (
        "sweep",
        "clean the floor of a room",
        "Sweep moves the dust of a room into one",
    )
    assert second == Description("sweep-doc", "clean the floor of a room (documentation)", ("This is the manual.",))
    sources = read_sources(write(tmp_path / "Packages", PACKAGES))
    assert sources == {"sweep": "sweep", "sweep-doc": "sweeping"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no stanza"),
        ("\n\n", "has no stanza"),
        ("Package: a\nnonsense\n", "line 2, is no line of a package list .*'nonsense'"),
        (" goes on\nPackage: a\n", "line 1, is no line of a package list"),
        ("\x04\x22M\x18", "line 1, is no line of a package list"),
        ("Package: a\nDescription-en: b\n\nPackage: c\nDescription-de: d\n", "line 6 has no field Description-en"),
        ("Description-en: b\n", "line 2 has no field Package"),
    ],
)
def test_a_file_that_is_no_list(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LSGError, match=said) as caught:
        list(read_descriptions(write(tmp_path / "list", text)))
    assert str(caught.value).startswith(f"{tmp_path}/list")


def test_paragraphs_are_unwrapped_and_lists_are_not(tmp_path: Path) -> None:
    first, _ = read_descriptions(write(tmp_path / "Translation-en", TRANSLATION))
    assert paragraphs_of_description(first.extended) == [
        "Sweep moves the dust of a room into one corner, and the state-of-the-art broom is put away.",
        "Features:\n* no noise, not even at night\n* nothing is lost\n- in summer\nSold as it is.",
    ]


@pytest.mark.parametrize(
    ("lines", "paragraphs"),
    [
        (["* one", "two", "* three"], ["* one two\n* three"]),  # no margin at all
        (["1) one", "2. two"], ["1) one\n2. two"]),
        ([" $ run", " $ stop"], ["$ run\n$ stop"]),  # lines that the author kept apart
        (["one", " verbatim", "two", "three"], ["one\nverbatim\ntwo three"]),
        (["one -", "two", ".", ".", "“three”"], ["one - two", '"three"']),
        ([], []),
    ],
)
def test_how_lines_are_joined(lines: list[str], paragraphs: list[str]) -> None:
    assert paragraphs_of_description(lines) == paragraphs


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("synopsis", "subject"),
    [
        ("fast parser (development files)", "fast parser"),
        ("fast parser - Python 3.x bindings", "fast parser"),
        ("fast parser -- data files (metapackage)", "fast parser"),
        ("fast parser; profiling libraries", "fast parser"),
        ("fast parser: shared library.", "fast parser"),
        ("fast parser - for dates", "fast parser - for dates"),
        ("fast parser (documentation of dates)", "fast parser (documentation of dates)"),
        ("parser, documentation and tools", "parser, documentation and tools"),
        ("wrapper of malloc()", "wrapper of malloc()"),
    ],
)
def test_what_tells_packages_of_one_source_apart_goes(synopsis: str, subject: str) -> None:
    assert without_packaging(synopsis) == subject


def test_sentences_of_many_sources_go() -> None:
    def described(count: int) -> list[tuple[Package, list[str]]]:
        says = [f"It is number {n}. Part of the Foo crate x{n}, see there. Main features of it:" for n in range(count)]
        return [(Package(f"libx{n}-dev", source=f"x{n}"), [text]) for n, text in enumerate(says)]

    assert not shared_moulds(described(MOST_SHARING))
    assert not shared_moulds([(Package(f"p{n}", source="one"), ["Said by one source only."]) for n in range(20)])
    shared = shared_moulds(described(MOST_SHARING + 1))
    assert shared == {"part of the foo crate see there"}
    [(package, [text]), *_] = described(1)
    # What leads to more is kept, however many say it.
    assert without_boilerplate(text, package.name, shared) == "It is number 0. Main features of it:"
    assert without_boilerplate("Good.\n* This metapackage is void.\nBad.", "p", shared) == "Good.\nBad."


def test_an_example() -> None:
    paragraphs = ["Clean the floor of a room! " + prose(1), "Sweep is to clean the floor of a room."]
    made = example_of_package(Package("sweep-bin", source="sweep"), "clean the floor of a room (tools)", paragraphs)
    assert made == Example(prose(1), "clean the floor of a room", "sweep-bin", "package", "sweep-bin", "sweep")
    assert not copies_of(made.summary).search(made.document)


@pytest.mark.parametrize(
    ("synopsis", "text", "reason"),
    [
        ("short (library)", prose(1), Reason.SHORT_DESCRIPTION),
        ("word " * 41, prose(1), Reason.LONG_DESCRIPTION),
        ("clean the floor", "the " * (FEWEST_WORDS - 1), Reason.SHORT_BODY),
        ("clean the floor", "der Befehl gibt alle Dateien eines Verzeichnisses aus " * 9, Reason.NOT_ENGLISH),
        ("transitional dummy package", prose(1), Reason.NO_CONTENT),
        ("clean the floor", "This is a transitional package. It can safely be removed.", Reason.NO_CONTENT),
        ("clean the floor", "This meta-package depends on all that is needed to sweep.", Reason.NO_CONTENT),
        ("clean the floor", f"{prose(1)} This is a dummy package.", None),
    ],
)
def test_descriptions_that_make_no_example(synopsis: str, text: str, reason: Reason | None) -> None:
    package = Package("p", source="p")
    if reason is None:
        assert example_of_package(package, synopsis, [text]).document == prose(1)
        return
    with pytest.raises(UnusablePage) as caught:
        example_of_package(package, synopsis, [text])
    assert caught.value.reason == reason


def test_packages_without_a_source_are_counted() -> None:
    descriptions = [Description(name, "clean the floor", (prose(1),)) for name in ("known", "unknown")]
    examples, dropped = read_examples(descriptions, {"known": "its-source"})
    assert [(e.package, e.source) for e in examples] == [("known", "its-source")]
    assert dropped == {Reason.UNKNOWN_SOURCE: 1}


# --- selection ------------------------------------------------------------------------------------------------------


def test_nothing_that_is_held_out_is_left() -> None:
    pages = {
        "valid": [{"document": prose(1, 900), "summary": "Sweep, the floor!", "package": "x"}],
        "test_seen": [{"document": "short", "summary": "say nothing more", "package": "seen"}],
        "test_unseen": [{"document": "short", "summary": "say nothing at all", "package": "lib-bin"}],
    }
    held_out = hold_out(pages, {"lib-bin": "lib", "seen": "seen"})
    assert held_out.sources == {"lib"}
    quotes = " ".join(prose(1, 900).split()[300:340])
    candidates = [
        example("lib-dev", prose(2), "of a source that is held out", "lib"),
        example("lib-bin", prose(3), "of a name that is held out", "elsewhere"),
        example("same", prose(4), "sweep the floor"),
        example("like", f"{quotes} And two sentences more. They do not help.", "what a page says, too"),
        example("seen", prose(5), "of a package that is seen in training"),
    ]
    kept, dropped = kept_packages(candidates, held_out)
    assert kept == {"lib-bin", "seen"}
    assert dropped == {Reason.HELD_OUT_SOURCE: 1, Reason.SAME_AS_HELD_OUT: 1, Reason.LIKE_HELD_OUT: 1}
    assert held_out.not_in_lists == ()
    unknown = hold_out(pages, {})
    assert unknown.sources == {"lib-bin"}  # as where the pages come from a folder
    assert unknown.not_in_lists == ("lib-bin",)


def test_a_part_of_a_page_is_found() -> None:
    words = prose(1, 2000).split()
    texts = [" ".join(words[100:140]), " ".join(words[100:125]) + " " + prose(2, 60), "!", prose(3)]
    assert contained_in_any(texts, ["", prose(4), " ".join(words)]) == [True, False, False, False]
    assert contained_in_any(texts, []) == [False] * 4
    assert contained_in_any(texts, [" ".join(words)], share=0.2) == [True, True, False, False]


@pytest.mark.parametrize(
    ("document", "summary", "reason"),
    [
        (prose(1).upper(), "something else is said", Reason.DUPLICATE),
        (prose(2), "Clean: the floor of a room", Reason.SAME_AS_ANOTHER),
        (f"{prose(1)} And the manual.", "something else is said", Reason.LIKE_ANOTHER),
    ],
)
def test_of_like_descriptions_that_of_the_shortest_name_is_kept(document: str, summary: str, reason: Reason) -> None:
    main = example("zfoo", prose(1), "clean the floor of a room")
    kept, dropped = kept_packages([example("a-doc", document, summary), main])
    assert (kept, dropped) == ({"zfoo"}, {reason: 1})


def test_what_many_say_but_for_their_names_goes() -> None:
    many = [example(f"x{n}", prose(n), f"Tools for language x{n}") for n in range(MOST_SHARING + 1)]
    kept, dropped = kept_packages([*many, example("y", prose(99), "Tools for one language")])
    assert (kept, dropped) == ({"y"}, {Reason.SHARED: MOST_SHARING + 1})


def test_sources_are_in_one_split_whatever_else_there_is() -> None:
    examples = [example(f"p{n}", prose(n), f"say {n} of {n * n}", f"source{n // 3}") for n in range(900)]
    splits, dropped = select_descriptions(examples, NOTHING_HELD_OUT)
    assert not dropped
    sources = {name: {e.source for e in chosen} for name, chosen in splits.items()}
    assert not sources["train"] & sources["valid"]
    assert 9 <= len(splits["valid"]) <= 60
    random.Random(0).shuffle(examples)
    assert select_descriptions(examples, NOTHING_HELD_OUT)[0] == splits
    fewer, _ = select_descriptions(examples[:450], NOTHING_HELD_OUT)
    assert all(set(fewer[name]) <= set(splits[name]) for name in splits)


# --- all of it ------------------------------------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with the pages of valid and of both test sets."""
    folder = tmp_path / "out"
    folder.mkdir()
    for number, split in enumerate(("valid", "test_seen", "test_unseen")):
        page = {"document": prose(1000 + number, 300), "summary": f"about {split} alone", "package": f"of-{split}"}
        write(folder / f"{split}.jsonl", json.dumps(page) + "\n")
    return folder


@pytest.fixture
def lists(tmp_path: Path) -> PackageLists:
    """Descriptions of 400 packages of 200 sources; three of them are of the source of test_unseen."""
    names = [f"p{n}" for n in range(400)]
    stanzas = [
        f"Package: {name}\nDescription-en: say {n} of {n * n}\n {prose(n)}\n .\n  * {name}\n"
        for n, name in enumerate(names)
    ]
    sources = [f"Package: {name}\nSource: s{n // 2 if n > 2 else 'unseen'} (1)\n" for n, name in enumerate(names)]
    return PackageLists(
        write(tmp_path / "Translation-en", "\n".join(stanzas)),
        write(tmp_path / "Packages", "\n".join([*sources, "Package: of-test_unseen\nSource: sunseen\n"])),
        "sid",
    )


def test_the_examples_are_written(out: Path, lists: PackageLists, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    prepare_descriptions(lists, out)
    written = {path.name: path.read_bytes() for path in out.iterdir() if path.name not in before}
    assert sorted(written) == ["descriptions.json", "descriptions_train.jsonl", "descriptions_valid.jsonl"]
    assert {name: (out / name).read_bytes() for name in before} == before
    report = json.loads(written["descriptions.json"])
    assert (report["descriptions"], report["release"], report["held_out_sources"]) == (400, "sid", ["sunseen"])
    assert report["held_out_packages_not_in_lists"] == 0
    assert report["dropped"] == {"of a source package of test_unseen": 3}
    records = {name: [json.loads(line) for line in written[f"descriptions_{name}.jsonl"].splitlines()]
               for name in ("train", "valid")}  # fmt: skip
    assert {name: len(found) for name, found in records.items()} == report["kept"]
    assert sum(report["kept"].values()) == 397
    assert all(tuple(record) == FIELDS for record in records["train"])
    first = next(record for record in records["train"] if record["package"] == "p20")
    assert first["document"] == f"{prose(20)}\n\n* p20"
    assert "400 descriptions, 397 kept:" in capsys.readouterr().out
    prepare_descriptions(lists, out)
    assert all((out / name).read_bytes() == content for name, content in written.items())


def test_held_out_packages_that_are_not_in_the_lists_are_said(
    out: Path, lists: PackageLists, capsys: pytest.CaptureFixture[str]
) -> None:
    write(lists.packages, lists.packages.read_text().replace("of-test_unseen", "renamed"))
    prepare_descriptions(lists, out)
    assert json.loads((out / "descriptions.json").read_text())["held_out_packages_not_in_lists"] == 1
    assert "1 packages of test_unseen are not in the lists (of-test_unseen): each counts" in capsys.readouterr().out


def test_a_run_that_finds_nothing_changes_nothing(out: Path, lists: PackageLists) -> None:
    before = sorted(out.iterdir())
    write(lists.descriptions, "Package: p1\nDescription-en: short\n")
    with pytest.raises(LSGError, match=r"none of the 1 descriptions gives an example \(description too short: 1\)"):
        prepare_descriptions(lists, out)
    assert sorted(out.iterdir()) == before


def test_the_command_says_what_is_wrong(out: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.manpages.descriptions.prepare"]
    lists = ["--lists", tmp_path / "missing", tmp_path / "Packages"]
    (tmp_path / "Packages").write_text("Package: a\n")
    printed = run(*command, *lists, "--out", out, check=False, cwd=REPOSITORY)
    assert printed.startswith("1\n")
    assert f"examples.manpages.descriptions.prepare: error: the file {tmp_path}/missing does not exist" in printed
    printed = run(*command, *lists, "--out", tmp_path / "no", check=False, cwd=REPOSITORY)
    assert f"{tmp_path}/no/valid.jsonl does not exist: run scripts/prepare_manpages.py" in printed
    assert not (tmp_path / "no").exists()


# --- apt ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for apt-get: `update` notes its calls and lists what is in `next`, or fails without it."""
    folder = tmp_path / "apt bin"
    folder.mkdir()
    script = write(
        folder / "apt-get",
        f"""#!/bin/sh
cd "{folder}"
case "$*" in
    *update*) echo "$@" >> calls; cp next targets 2>/dev/null || {{ echo "E: no route" >&2; exit 100; }} ;;
    *indextargets*) test ! -f targets || cat targets ;;
esac
""",
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


BOOKWORM = """bookworm|12.1|Packages|/lists/bookworm Packages
bookworm|12.1|Packages|/lists/of a foreign architecture
bookworm|12.1|Translations|/lists/bookworm Translation-en
bookworm-updates|12-updates|Packages|/lists/updates Packages
bookworm-updates|12-updates|Translations|/lists/updates Translation-en
"""


def test_lists_are_fetched_once_into_a_folder_of_their_own(apt: Path, tmp_path: Path) -> None:
    write(apt / "next", BOOKWORM)
    expected = PackageLists(
        Path("/lists/bookworm Translation-en"), Path("/lists/bookworm Packages"), release="bookworm 12.1"
    )
    folder = tmp_path / "downloads" / "apt"
    assert fetch_lists(folder) == expected
    assert fetch_lists(folder) == expected
    [call] = (apt / "calls").read_text().splitlines()
    assert f"Dir::State::lists={folder}/lists" in call
    assert f"Dir::Cache={folder}/cache" in call
    assert f"-c {folder}/apt.conf" in call
    # apt itself refuses to work without them.
    assert (folder / "lists" / "partial").is_dir()
    assert (folder / "cache" / "archives" / "partial").is_dir()


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (None, r"apt fetched no lists of a Debian release \(.*no route\): try again, or name files with --lists"),
        ("", "no lists of a Debian release"),
        (BOOKWORM.replace("Translations", "Sources"), "no lists of a Debian release"),
        (BOOKWORM + BOOKWORM.replace("bookworm|12.1", "sid|"), r"several releases of Debian \(bookworm 12.1, sid\)"),
    ],
)
def test_lists_that_apt_does_not_have(apt: Path, tmp_path: Path, targets: str | None, said: str) -> None:
    if targets is not None:
        write(apt / "next", targets)
    with pytest.raises(LSGError, match=said):
        fetch_lists(tmp_path / "downloads")


def test_without_debian_lists_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LSGError, match="apt-get was not found"):
        fetch_lists(tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()
