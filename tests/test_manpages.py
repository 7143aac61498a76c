"""Manual pages as a data set: what is read, what is dropped and why, and that no like pages stand in two splits."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from conftest import REPOSITORY, run
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.manpages.corpus.examples import (
    Section,
    body_without,
    check_body,
    check_description,
    copies_of,
    example_of,
    find_mandoc,
    parse_name_section,
    read_sections,
    render,
    without_copies,
)
from examples.manpages.corpus.find_pages import fetch_packages, pages_of_folder, pages_of_package, read_package_names
from examples.manpages.corpus.pages import (
    FIELDS,
    MAX_BYTES,
    Example,
    Package,
    RawPage,
    Reason,
    UnusablePage,
    name_and_section,
    source_of,
)
from examples.manpages.corpus.prepare import PACKAGES, prepare
from examples.manpages.corpus.selection import LARGEST_GROUP, MOST_SHARING, assign_splits, select
from examples.manpages.corpus.similarity import MinHash, equal_pairs, group, near_duplicates, similar_pairs
from examples.manpages.evaluation.baselines import first_sentence, nearest_description, score_baselines
from lsg_fairseq.modules.lsg_config import LSGError

PAGES = REPOSITORY / "tests" / "data" / "manpages"
SWEEP = """SYNOPSIS

sweep [-q] room

DESCRIPTION

The sweep utility moves the dust of a room into one corner.

-q Make no noise.

SEE ALSO

tidy-up(1)"""
WORDS = "a an of file page list sort print write read copy move and the is are with for from into line word".split()

CONTROL = "Package: x-doc\nSource: x\nVersion: 1:2-3\nArchitecture: all\nMaintainer: x\nDescription: x\n"

# Renders pages that consist of headings and text, so that no test depends on mandoc being installed.
STAND_IN = r"""#!/bin/sh
exec awk 'BEGIN { print "HEADER(1)" } END { print "FOOTER" }
    /^\.SH / { first = substr($0, 5, 1); print first "\b" first substr($0, 6); next } { print "     " $0 }'
"""


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def mandoc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for mandoc, first on the PATH."""
    program = write_program(tmp_path / "bin" / "mandoc", STAND_IN)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def prose(seed: int, count: int = 80) -> str:
    return " ".join(
        random.Random(seed).choices([f"{word}{n}" for word in WORDS for n in ("", "", "s", "ing")], k=count)
    )


def page(name: str, description: str, body: str) -> bytes:
    return f".SH NAME\n{name} - {description}\n.SH DESCRIPTION\n{body}\n".encode()


def example(name: str, document: str, summary: str, package: str = "p") -> Example:
    return Example(document, summary, name, "1", package, package)


# --- one page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sweep.8", "tidy.1"])
def test_the_stored_renderings_are_what_mandoc_prints(name: str) -> None:
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    stored = read_sections((PAGES / f"{name}.txt").read_text(encoding="utf-8"))
    assert read_sections(render((PAGES / name).read_bytes(), Path(shutil.which("mandoc")))) == stored


def test_an_mdoc_page() -> None:
    sections = read_sections((PAGES / "sweep.8.txt").read_text(encoding="utf-8"))
    names, description = parse_name_section(sections)
    assert (names, description) == (["sweep", "broom"], "clean the floor of a room")
    assert body_without(sections, description) == SWEEP


def test_a_man_page() -> None:
    sections = read_sections((PAGES / "tidy.1.txt").read_text(encoding="utf-8"))
    names, description = parse_name_section(sections)
    assert (names, description) == (["tidy-up", "tidy"], "put every thing in its place")
    body = body_without(sections, description)
    first, second, rooms = body.split("\n\n")[3:6]
    # The sentence that only repeated NAME has gone; the one that said more has not, nor has what mandoc had broken.
    assert first.startswith("It walks through each room, looks")
    assert "nothing is ever thrown away, and nothing is moved" in first
    assert "\n" not in first
    assert second == 'The program\'s aim is to " ", says its author; it is state-of-the-art.'
    assert rooms == "Rooms\nA room is a directory—or a link to one."
    assert body.endswith("EXAMPLE\n\ntidy-up kitchen\ntidy-up -n attic\n\nstatus meaning\n0 tidy")
    assert not {"\x08", "│", "─"} & set(body)


@pytest.mark.parametrize(
    ("line", "names", "description"),
    [
        ("ls - list files", ["ls"], "list files"),
        ("a, b,c \u2013 do it", ["a", "b", "c"], "do it"),
        ("x — one - and another", ["x"], "one - and another"),
        ("git-add -- add a file", ["git-add"], "add a file"),
        ("Foo::Bar -baz things", ["Foo::Bar"], "baz things"),
        ("foo- bar things", ["foo"], "bar things"),
    ],
)
def test_names_and_description(line: str, names: list[str], description: str) -> None:
    assert parse_name_section([Section("Name", [line])]) == (names, description)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ([], Reason.NO_NAME),
        ([Section("DESCRIPTION", ["ls - list files"])], Reason.NO_NAME),
        ([Section("NAME", [])], Reason.NO_DESCRIPTION),
        ([Section("NAME", ["ls lists files"])], Reason.NO_DESCRIPTION),
        ([Section("NAME", ["ls -"])], Reason.NO_DESCRIPTION),
        ([Section("NAME", ["a - one\nb - two"])], Reason.NO_DESCRIPTION),
    ],
)
def test_a_name_section_without_one_description(sections: list[Section], reason: Reason) -> None:
    with pytest.raises(UnusablePage) as caught:
        parse_name_section(sections)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("check", "text", "reason"),
    [
        (check_description, "two words", Reason.SHORT_DESCRIPTION),
        (check_description, "word " * 41, Reason.LONG_DESCRIPTION),
        (check_body, "the cat is on the mat", Reason.SHORT_BODY),
        (check_body, "der Befehl gibt alle Dateien eines Verzeichnisses aus " * 9, Reason.NOT_ENGLISH),
    ],
)
def test_texts_that_make_no_example(check: Callable[[str], None], text: str, reason: Reason) -> None:
    with pytest.raises(UnusablePage) as caught:
        check(text)
    assert caught.value.reason == reason
    check("names the file " * (10 if check is check_description else 20))


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("man/man1/a.1", None, Reason.ALIAS),
        ("man/man1/a.1.gz", gzip.compress(b'.\\" by hand\n.so man1/b.1\n', mtime=0), Reason.ALIAS),
        ("man/man1/a.1", b".TH A 1\n.so man1/b.1\n", Reason.INCLUDES),
        ("man/man1/a.1", b"x" * (MAX_BYTES + 1), Reason.TOO_LARGE),
        ("man/man1/a.1.gz", gzip.compress(b"x" * (MAX_BYTES + 1), mtime=0), Reason.TOO_LARGE),
        ("man/man1/a.1.gz", b"\x1f\x8b damaged", Reason.UNREADABLE),
        ("man/man1/a.1.gz", gzip.compress(b".TH A 1", mtime=0)[:-9], Reason.UNREADABLE),
        ("man/de/man1/a.1", b"", Reason.TRANSLATED),
        ("man/pt_BR/man1/a.1", b"", Reason.TRANSLATED),
        ("man/man1/README", b"", Reason.FILE_NAME),
    ],
)
def test_files_that_are_no_page_of_their_own(path: str, content: bytes | None, reason: Reason) -> None:
    raw = RawPage(Package("p"), PurePosixPath("/usr/share") / path, content)
    assert example_of(raw, Path("not needed")) == reason


def test_gzipped_and_plain_pages_are_one() -> None:
    paths = [PurePosixPath("man/man3/Foo::Bar.3pm"), PurePosixPath("man/man3/Foo::Bar.3pm.gz")]
    assert {name_and_section(path) for path in paths} == {("Foo::Bar", "3pm")}
    pages = [RawPage(Package("p"), paths[0], content) for content in (b".TH A", gzip.compress(b".TH A", mtime=0))]
    assert {source_of(page) for page in pages} == {b".TH A"}


# --- no copy of the description -------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(WORDS), min_size=3, max_size=6), st.randoms(use_true_random=False))
def test_no_copy_is_left(words: list[str], generator: random.Random) -> None:
    description = " ".join(words) + generator.choice(["", "."])
    pieces = [generator.choice([description.capitalize(), "\n".join(words), " ".join(generator.choices(WORDS, k=9))])
              for _ in range(12)]  # fmt: skip
    sections = [Section("NAME", [f"x - {description}"]), Section("DESCRIPTION", [" ".join(pieces[:6]), *pieces[6:]])]
    assert not copies_of(description).search(body_without(sections, description))


def test_words_that_hold_the_description_stay() -> None:
    copies = copies_of("list the file")
    assert without_copies("It can relist the files. Use -l.", copies) == "It can relist the files. Use -l."
    assert without_copies("ls - List the\nfile. Use -l.", copies) == "Use -l."
    assert without_copies("You may list the file when you are in a room.", copies).startswith("You may when you are")


# --- like pages -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "alike"), [(0, True), (3, True), (200, False)])
def test_like_documents_are_found(changed: int, alike: bool) -> None:
    words = prose(1, 200).split()
    other = [f"other{n}" if n < changed else word for n, word in enumerate(words)]
    signatures = np.array([MinHash().signature(" ".join(text)) for text in (words, other)])
    pairs, similarity = similar_pairs(signatures)
    assert pairs.tolist() == ([[0, 1]] if alike else [])
    shingles = [{tuple(text[n : n + 5]) for n in range(196)} for text in (words, other)]
    exact = len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1])
    assert similarity == pytest.approx([exact] if alike else [], abs=0.1)


def test_signatures_look_at_words_alone() -> None:
    assert (MinHash().signature("A cat, on: a mat!") == MinHash().signature("a cat on a\nmat")).all()
    assert (MinHash().signature("") == MinHash().signature("...")).all()


def test_of_near_duplicates_the_first_stays() -> None:
    pairs = np.array([[0, 1], [1, 2], [2, 3], [4, 5]])
    # 2 is like 1, which has gone already; 3 is like 2, which stays.
    assert near_duplicates(pairs, np.array([0.95, 0.95, 0.95, 0.6])) == {1, 3}


def test_groups_are_transitive_over_both_kinds_of_likeness() -> None:
    links = [(0, 1), (4, 5), *equal_pairs(["a", "b", "b", "c", "d", "c"])]
    assert group(6, links) == [0, 0, 0, 3, 3, 3]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12), st.integers(0, 1)), min_size=1, max_size=300))
def test_no_group_straddles_splits(rows: list[tuple[int, int, int]]) -> None:
    examples = [Example("d", "s", f"n{i}", "1", f"{source}-{part}", str(source))
                for i, (_, source, part) in enumerate(rows)]  # fmt: skip
    groups = [label for label, _, _ in rows]
    splits = assign_splits(examples, groups)
    placed = [(e, g, s) for e, g, s in zip(examples, groups, splits, strict=True) if s != Reason.LIKE_TRAINING]
    assert all(len({s for _, g, s in placed if g == label}) <= 1 for label in set(groups))
    unseen = {e.source for e, _, s in placed if s == "test_unseen"}
    assert not unseen & {e.source for e, _, s in placed if s != "test_unseen"}
    trained = {e.package for e, _, s in placed if s == "train"}
    assert {e.package for e, _, s in placed if s in ("valid", "test_seen")} <= trained
    sizes = Counter(g for _, g, s in placed if s in ("valid", "test_seen"))
    assert all(size <= LARGEST_GROUP for size in sizes.values())


def many_examples(count: int = 1500) -> list[Example]:
    """Documents of 60 packages; every fifth has a near-duplicate and every seventh an equal description elsewhere."""
    made = [example(f"n{i}", prose(i), f"says {i} of {i % 7 or 'something'}", f"p{i % 60}") for i in range(count)]
    for i in range(0, count - 61, 5):
        made.append(replace(made[i], name=f"near{i}", package=f"p{i % 59}", source=f"p{i % 59}",
                            document="Now " + made[i].document))  # fmt: skip
        made.append(replace(made[i], name=f"half{i}", document=made[i].document + " " + prose(-i - 1, 30)))
    # With and without the page's own name in it: equal all the same.
    return [replace(e, summary=f"of all {i // 14}", name=e.name if i % 14 else f"all{e.name}-all") if i % 7 == 0 else e
            for i, e in enumerate(made)]  # fmt: skip


def test_selection_is_by_content_alone_and_never_straddles() -> None:
    examples = many_examples()
    splits, dropped = select(examples)
    assert sum(map(len, splits.values())) + dropped.total() == len(examples)
    assert all(len(chosen) >= 10 for chosen in splits.values())
    assert dropped[Reason.NEAR_DUPLICATE] >= 200
    random.Random(0).shuffle(examples)
    assert select(examples) == (splits, dropped)
    where: dict[str, set[str]] = {}
    for name, chosen in splits.items():
        for e in chosen:
            for key in (e.summary, re.sub(r"\D", "", e.name)):
                where.setdefault(key, set()).add(name)
    assert all(len(names) == 1 for names in where.values())


def test_descriptions_from_one_mould_are_dropped() -> None:
    moulded = [example(f"x{n}", prose(n), f"Functions for class x{n}") for n in range(MOST_SHARING + 1)]
    splits, dropped = select([*moulded, example("y", prose(99), "Says what it is")])
    assert dropped == {Reason.GENERIC: MOST_SHARING + 1}
    assert [e.name for chosen in splits.values() for e in chosen] == ["y"]


def test_pages_from_one_mould_are_together() -> None:
    makers = range(40)
    moulded = [
        example(f"x{n}y{m}", prose(9 * n + m), f"Function of kind {n} for x{n}y{m}") for n in makers for m in range(9)
    ]
    splits, dropped = select(moulded)
    assert not dropped
    assert min(map(len, splits.values())) == 0  # one package: nothing is held out
    kinds = [{e.summary.split()[3] for e in chosen} for chosen in splits.values()]
    assert sum(map(len, kinds)) == len(makers)
    assert len(kinds[0]) < len(makers)


def test_equal_documents_are_one() -> None:
    twice = [example("b", prose(1), "A second description"), example("a", prose(1) + ".", "A first description")]
    splits, dropped = select(twice)
    assert dropped == {Reason.DUPLICATE: 1}
    assert [e.name for chosen in splits.values() for e in chosen] == ["a"]


# --- folders and packages -------------------------------------------------------------------------------------------


def test_a_folder_of_packages(tmp_path: Path) -> None:
    for name in ("man1/a.1", "git-man/usr/share/man/man1/git.1", "git-man/usr/share/man/de/man1/git.1", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "man1" / "link.1").symlink_to("/etc/passwd")
    pages = [page for batch in pages_of_folder(tmp_path) for page in batch]
    assert {(page.package.name, page.path.name, page.content) for page in pages} == {
        (tmp_path.name, "a.1", b"text"),
        (tmp_path.name, "link.1", None),
        ("git-man", "git.1", b"text"),
    }
    assert len(pages) == 4  # the translation is among them, to be counted


@pytest.mark.parametrize(("make", "said"), [(False, "does not exist"), (True, "has no manual page")])
def test_a_folder_without_pages(tmp_path: Path, make: bool, said: str) -> None:
    folder = tmp_path / "pages"
    if make:
        folder.mkdir()
    with pytest.raises(LSGError, match=said):
        list(pages_of_folder(folder))


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is Debian's")
def test_pages_are_read_from_a_package(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, text in {
        "DEBIAN/control": CONTROL,
        "usr/share/man/man1/a.1": ".TH A 1",
        "usr/share/man/fr/man1/a.1": ".TH A 1",
        "usr/share/doc/man1/no.1": "no page",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "usr/share/man/man1/b.1").symlink_to("/etc/passwd")
    deb = tmp_path / "x-doc_2-3_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, deb], check=True, capture_output=True)
    pages = {str(page.path): page for page in pages_of_package(deb)}
    assert {path: page.content for path, page in pages.items()} == {
        "usr/share/man/man1/a.1": b".TH A 1",
        "usr/share/man/fr/man1/a.1": b".TH A 1",
        "usr/share/man/man1/b.1": None,
    }
    assert {page.package for page in pages.values()} == {Package("x-doc", "1:2-3", "x")}
    assert example_of(pages["usr/share/man/fr/man1/a.1"], Path("not needed")) == Reason.TRANSLATED
    deb.write_bytes(deb.read_bytes()[:200])
    with pytest.raises(LSGError, match="delete it, and it is fetched again"):
        list(pages_of_package(deb))


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for Debian's tools: they know every package but `unknown`, and fail to download `broken`."""
    folder = tmp_path / "apt"
    show = 'for name in "$@"; do case "$name" in unknown|show|-*) ;; *) echo "Package: $name" ;; esac; done\n'
    get = 'for name in "$@"; do case "$name" in broken) echo "E: no route" >&2; exit 100 ;; -*|APT*|download) ;;'
    write_program(folder / "apt-cache", "#!/bin/sh\n" + show)
    write_program(
        folder / "apt-get",
        f'#!/bin/sh\necho "$@" >> {folder}/calls\n{get} *) : > "${{name}}_1_all.deb" ;; esac; done\n',
    )
    write_program(folder / "dpkg-deb", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_downloads_are_reused(apt: Path, tmp_path: Path) -> None:
    files, unknown = fetch_packages(["b-doc", "unknown", "a"], tmp_path / "debs")
    assert [path.name for path in files] == ["b-doc_1_all.deb", "a_1_all.deb"]
    assert unknown == ["unknown"]
    assert fetch_packages(["b-doc", "a"], tmp_path / "debs") == (files, [])
    assert len((apt / "calls").read_text().splitlines()) == 1
    (tmp_path / "debs" / "a_2_all.deb").touch()
    with pytest.raises(LSGError, match="holds 2 files of the package a, not one"):
        fetch_packages(["a"], tmp_path / "debs")


def test_a_failed_download_is_said_and_leaves_nothing(apt: Path, tmp_path: Path) -> None:
    with pytest.raises(LSGError, match=r"no route.*try again"):
        fetch_packages(["a", "broken"], tmp_path / "debs")
    assert not (tmp_path / "debs").exists()
    with pytest.raises(LSGError, match="apt-get update"):
        fetch_packages(["unknown"], tmp_path / "debs")


def test_without_debian_a_folder_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LSGError, match="name a folder of pages"):
        fetch_packages(["a"], tmp_path)
    with pytest.raises(LSGError, match="mandoc, which renders the pages, is not installed"):
        find_mandoc(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"), [("# none\n", "names no package"), ("aa -o=x\n", "'-o=x' is no name"), (None, "does not exist")]
)
def test_a_list_of_packages_that_makes_no_sense(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "packages.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LSGError, match=said):
        read_package_names(path)


def test_the_list_of_packages() -> None:
    names = read_package_names(PACKAGES)
    assert {"manpages", "perl-doc", "git-man"} <= set(names)
    words = [word for line in PACKAGES.read_text().splitlines() if not line.startswith("#") for word in line.split()]
    assert words == names  # none twice


# --- all of it ------------------------------------------------------------------------------------------------------


def write_folder(folder: Path, count: int = 120) -> Path:
    for n in range(count):
        path = folder / f"package{n % 30}" / "man1" / f"tool{n}.1"
        path.parent.mkdir(parents=True, exist_ok=True)
        description = f"tell {n} of {'everything' if n % 2 else 'nothing'}"
        path.write_bytes(page(f"tool{n}", description, f"It can {description}. {prose(n)}."))
    (folder / "package0" / "man1" / "alias.1").write_bytes(b".so man1/tool0.1\n")
    return folder


def test_the_splits_are_written(mandoc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = write_folder(tmp_path / "pages")
    for out in ("one", "two"):
        prepare(pages, Path("not needed"), tmp_path / out)
    files = ["manpages.json", "test_seen.jsonl", "test_unseen.jsonl", "train.jsonl", "valid.jsonl"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == files
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    report = json.loads((tmp_path / "one" / "manpages.json").read_text())
    assert (report["pages"], report["dropped"]) == (121, {"another name of a page: a link or .so": 1})
    assert sum(report["kept"].values()) == 120
    assert report["words"]["train"]["summary"]["0.5"] == 4
    records = [json.loads(line) for line in (tmp_path / "one" / "train.jsonl").read_text().splitlines()]
    assert all(tuple(record) == FIELDS for record in records)
    assert all(record["document"].startswith("DESCRIPTION\n\n") for record in records)
    assert not any(record["summary"] in record["document"] for record in records)
    assert "121 pages, 120 kept:" in capsys.readouterr().out


def test_a_run_that_finds_nothing_changes_nothing(mandoc: Path, tmp_path: Path) -> None:
    prepare(write_folder(tmp_path / "pages"), Path("not needed"), tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    empty = tmp_path / "empty" / "man1" / "a.1"
    empty.parent.mkdir(parents=True)
    empty.write_bytes(b".SH NAME\nabout nothing\n")
    with pytest.raises(LSGError, match=r"none of the 1 manual pages gives an example \(NAME is not"):
        prepare(tmp_path / "empty", Path("not needed"), tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_script_says_what_is_wrong(tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "prepare_manpages.py"
    printed = run(sys.executable, script, tmp_path / "missing", "--out", tmp_path / "out", check=False)
    assert printed.startswith("1\n")
    assert f"prepare_manpages: error: the folder of manual pages {tmp_path}/missing does not exist" in printed
    assert not (tmp_path / "out").exists()


# --- baselines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("SYNOPSIS\n\nls.\n\nDescription\n\nIt lists\nfiles. And more.", "It lists files."),
        ("OVERVIEW\n\nIt lists files. And more.\n\nOPTIONS\n\n-l", "It lists files."),
        ("SYNOPSIS\n\nls file", "SYNOPSIS"),
    ],
)
def test_the_first_sentence(document: str, sentence: str) -> None:
    assert first_sentence(document) == sentence


def test_the_nearest_page_is_found() -> None:
    training = [{"document": prose(n), "summary": f"description {n}"} for n in range(300)]
    found = nearest_description(training)([{"document": "Now " + page["document"]} for page in training])
    assert found == [page["summary"] for page in training]
    with pytest.raises(LSGError, match="no training page"):
        nearest_description([])


def test_baselines_are_scored(mandoc: Path, tmp_path: Path) -> None:
    with pytest.raises(LSGError, match=r"run scripts/prepare_manpages.py"):
        score_baselines(tmp_path / "out")
    prepare(write_folder(tmp_path / "pages", 400), Path("not needed"), tmp_path / "out")
    score_baselines(tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "baselines.json").read_text())
    for name in ("test_seen", "test_unseen"):
        lines = (tmp_path / "out" / f"{name}.baselines.jsonl").read_text().splitlines()
        assert len(lines) == scores[name]["pages"] > 0
        assert {"first_sentence", "nearest_training_page"} < json.loads(lines[0]).keys()
        # All descriptions share "tell" and "of" and nothing else, but for their last word.
        assert 50 <= scores[name]["nearest_training_page"]["rouge1"] <= 75
        assert scores[name]["first_sentence"]["rouge2"] <= 10


def test_baselines_of_other_sets_leave_those_of_the_test_sets_alone(mandoc: Path, tmp_path: Path) -> None:
    prepare(write_folder(tmp_path / "pages"), Path("not needed"), tmp_path / "out")
    before = sorted(tmp_path.joinpath("out").iterdir())
    score_baselines(tmp_path / "out", ["valid"])
    written = [path.name for path in sorted(tmp_path.joinpath("out").iterdir()) if path not in before]
    assert written == ["valid.baselines.json", "valid.baselines.jsonl"]
    assert list(json.loads((tmp_path / "out" / "valid.baselines.json").read_text())) == ["valid"]
