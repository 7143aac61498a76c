"""Who may import whom, and how long things may get, read from the source without importing it."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lsg_fairseq"
PACKAGE_FILES = sorted(PACKAGE.rglob("*.py"))
ALL_FILES = [*PACKAGE_FILES, *sorted((ROOT / "scripts").rglob("*.py")), *sorted(ROOT.glob("*.py"))]

# A file is one idea, read in one sitting; a function is one step of it.
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_ARGUMENTS = 400, 40, 6
# Functions whose signature is fixed elsewhere, with the place that fixes it.
MORE_ARGUMENTS = {
    ("lsg_fairseq/modules/lsg_attention.py", "lsg_attention"): "a public signature",
}
# The map of the package: each floor is a question, and imports only from floors below it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("modules",),  # the formula: LSG attention in torch alone
    ("weights",),  # what must a state dict look like?
    ("tokenizers",),  # text to ids and back
    (
        "compat",
        "processes",
        "generation",
        "alignment",
        "scoring",
    ),  # what stock fairseq needs; searching; ROUGE
    ("models",),  # fairseq's encoder and decoder with hooks overridden; where a flag becomes a setting
    ("huggingface",),  # how does Hugging Face say it?
    ("data",),  # documents to fairseq's binary format
    ("tasks",),  # fairseq's tasks
    ("checkpoints",),  # a path or an id to a model
    ("hub",),  # torch.hub
    ("summarizing",),  # documents in, summaries out
    ("planning",),  # what memory a training takes
    ("commands",),  # command lines
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Public names of what lives in a room; the package itself does not use them.
REEXPORTS = ("conversion", "tokenization")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports_of(nodes: Iterable[ast.AST], path: Path) -> Iterator[str]:
    """Dotted names of the modules that these nodes import, relative ones spelled out."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            for alias in node.names:
                yield f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base


def top_level(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: function bodies and `if TYPE_CHECKING` do not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from top_level(node)


def all_imports(path: Path) -> set[str]:
    return set(imports_of(ast.walk(ast.parse(path.read_text())), path))


def is_inside(module: str, parent: str) -> bool:
    return module == parent or module.startswith(parent + ".")


def is_low_level(module: str) -> bool:
    """What every part of the package may import: torch and the standard library."""
    return module.split(".")[0] in {"torch", *sys.stdlib_module_names}


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def arguments_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    spec = function.args
    names = [a.arg for a in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def has_too_many_arguments(path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    is_hub_entry = path.parent.name == "hub" and not function.name.startswith("_")
    return len(arguments_of(function)) > MAX_ARGUMENTS and function.name != "forward" and not is_hub_entry


# --- who may import whom --------------------------------------------------------------------------------------------


def room_of(module: str) -> str:
    """The room that a module of the package is in: "modules" for lsg_fairseq.modules.registry, "" for lsg_fairseq."""
    return [*module.split("."), ""][1]


def own_imports(path: Path) -> set[str]:
    return {module for module in all_imports(path) if is_inside(module, "lsg_fairseq") and module != "lsg_fairseq"}


def looks_up(room: str, imported: str) -> bool:
    """Whether a file of `room` that imports from the room `imported` looks up, or past the map."""
    return imported in REEXPORTS or FLOOR_OF[imported] > FLOOR_OF[room]


def find_circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Circles in a graph of imports, each as the names along it."""
    circles: list[list[str]] = []
    finished: set[str] = set()

    def visit(module: str, above: list[str]) -> None:
        if module in above:
            circles.append(above[above.index(module) :])
        elif module not in finished:
            for imported in sorted(imports.get(module, ())):
                visit(imported, [*above, module])
            finished.add(module)

    for module in sorted(imports):
        visit(module, [])
    return circles


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(module_of(path)) for path in PACKAGE_FILES} - {"", *REEXPORTS}
    assert rooms == set(FLOOR_OF)


@pytest.mark.parametrize("path", [p for p in PACKAGE_FILES if room_of(module_of(p)) in FLOOR_OF], ids=name_of)
def test_no_import_looks_up(path: Path) -> None:
    room = room_of(module_of(path))
    assert {module for module in own_imports(path) if looks_up(room, room_of(module))} == set()


def test_no_imports_run_in_a_circle() -> None:
    graph = {module_of(path): own_imports(path) - {module_of(path)} for path in PACKAGE_FILES}
    assert find_circles(graph) == []


@pytest.mark.parametrize("path", [p for p in PACKAGE_FILES if room_of(module_of(p)) == "modules"], ids=name_of)
def test_modules_import_torch_and_the_standard_library_only(path: Path) -> None:
    foreign = {m for m in all_imports(path) if not is_low_level(m) and room_of(m) != "modules"}
    if path.name.startswith("triton_"):
        foreign = {m for m in foreign if not is_inside(m, "triton")}
    assert not foreign


# These run when a kernel is about to, and not before: triton is a part of torch's CUDA builds alone.
TRITON_MODULES = {f"lsg_fairseq.modules.triton_{name}" for name in ("kernels", "launches", "tiles")}


@pytest.mark.parametrize("path", [p for p in ALL_FILES if module_of(p) not in TRITON_MODULES], ids=name_of)
def test_triton_is_imported_lazily(path: Path) -> None:
    at_import = set(imports_of(top_level(ast.parse(path.read_text())), path))
    assert not {m for m in at_import if is_inside(m, "triton") or m in TRITON_MODULES}


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_only_entry_points_import_the_hub(path: Path) -> None:
    if name_of(path).startswith(("hubconf.py", "scripts/", "lsg_fairseq/commands/", "lsg_fairseq/hub/__init__.py")):
        pytest.skip("an entry point")
    assert not all_imports(path) & {"lsg_fairseq.hub", "lsg_fairseq.hub.entries"}


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name_of)
def test_transformers_is_not_needed(path: Path) -> None:
    assert not {m for m in all_imports(path) if is_inside(m, "transformers")}


def test_hubconf_lists_what_is_imported() -> None:
    """torch.hub says in a sentence which of them is missing; huggingface_hub is imported for hub ids alone.

    fairseq_cli is a part of fairseq, and triton comes with torch's CUDA builds.
    """
    at_import = {m for path in PACKAGE_FILES for m in imports_of(top_level(ast.parse(path.read_text())), path)}
    needed = {m.split(".")[0] for m in at_import} - sys.stdlib_module_names - {"lsg_fairseq", "triton", "fairseq_cli"}
    listed = next(n for n in ast.parse((ROOT / "hubconf.py").read_text()).body if isinstance(n, ast.Assign))
    assert set(ast.literal_eval(listed.value)) == needed | {"huggingface_hub"}


@pytest.mark.parametrize("folder", ["benchmarks", "recipes", "examples"])
def test_what_is_run_as_a_module_leaves_the_path_alone(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [name_of(path) for path in files if "sys.path" in path.read_text()] == []


# Lazy imports too: a file that moved breaks them, and a benchmark or an example shows it hours into its run.
OURS = ("lsg_fairseq", "benchmarks", "recipes", "examples")
OWN_FILES = [path for folder in (*OURS, "scripts", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


# torch.hub's entries are made when it is imported, one a row of a table.
MADE_AT_IMPORT = ("lsg_fairseq.hub", "lsg_fairseq.hub.entries")


@functools.cache
def names_of(module: str) -> set[str]:
    """What a module of this repository defines or hands on, read from its source."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text()) if path.exists() else ast.Module([], [])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
            if node.names[0].name == "*":
                names |= names_of(node.module)
    return names


def missing_imports(tree: ast.AST) -> Iterator[str]:
    """Absolute imports of this repository's own modules and names that lead nowhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, "*") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            wanted = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in wanted:
            if module.split(".")[0] not in OURS:
                continue
            anything = name == "*" or module in MADE_AT_IMPORT
            if not is_module(module) or not (anything or is_module(f"{module}.{name}") or name in names_of(module)):
                yield f"{module}.{name}"


@pytest.mark.parametrize("path", OWN_FILES, ids=name_of)
def test_own_imports_lead_somewhere(path: Path) -> None:
    assert list(missing_imports(ast.parse(path.read_text()))) == []


# --- how long things may get ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    num_lines = len(path.read_text().splitlines())
    assert num_lines <= MAX_FILE_LINES
    lengths = {f.name: f.end_lineno - f.lineno + 1 for f in functions_of(path)}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=name_of)
def test_functions_take_few_arguments(path: Path) -> None:
    too_many = {f.name for f in functions_of(path) if has_too_many_arguments(path, f)}
    # Equal, not a subset: an exception that is no longer needed has to go.
    assert too_many == {function for file, function in MORE_ARGUMENTS if file == name_of(path)}


# --- the checks themselves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b, c", {"a.b", "c"}),
        ("from lsg_fairseq import hub", {"lsg_fairseq"}),
        ("from lsg_fairseq import modules", {"lsg_fairseq.modules"}),
        ("from lsg_fairseq.modules import lsg_config", {"lsg_fairseq.modules.lsg_config"}),
        ("from lsg_fairseq.modules.lsg_config import LSGConfig", {"lsg_fairseq.modules.lsg_config"}),
        ("from . import registry", {"lsg_fairseq.modules.registry"}),
        ("from ..models import x", {"lsg_fairseq.models"}),
        ("def f():\n    import a", {"a"}),
    ],
)
def test_imports_are_found(source: str, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    exists = {"lsg_fairseq.modules", "lsg_fairseq.modules.lsg_config", "lsg_fairseq.modules.registry"}
    monkeypatch.setattr(sys.modules[__name__], "is_module", exists.__contains__)
    found = set(imports_of(ast.walk(ast.parse(source)), PACKAGE / "modules" / "example.py"))
    assert found == expected


@pytest.mark.parametrize(
    ("room", "imported", "expected"),
    [
        ("models", "modules", False),
        ("models", "models", False),
        ("models", "checkpoints", True),
        ("modules", "weights", True),
        ("hub", "tokenization", True),
    ],
)
def test_imports_that_look_up_are_told_apart(room: str, imported: str, expected: bool) -> None:
    assert looks_up(room, imported) is expected


def test_circles_are_found() -> None:
    assert find_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("from lsg_fairseq.hub import lsg_bart", []),
        ("def f():\n    from lsg_fairseq.hub.moved import x", ["lsg_fairseq.hub.moved.x"]),
        ("from lsg_fairseq.hub.batches import moved", ["lsg_fairseq.hub.batches.moved"]),
        ("import lsg_fairseq.moved", ["lsg_fairseq.moved.*"]),
        ("import our_models", []),
    ],
)
def test_imports_that_lead_nowhere_are_found(source: str, missing: list[str]) -> None:
    assert list(missing_imports(ast.parse(source))) == missing


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import transformers", True),
        ("try:\n    from transformers import AutoTokenizer\nexcept ImportError:\n    pass", True),
        ("class A:\n    import transformers", True),
        ("def f():\n    import transformers", False),
        ("if TYPE_CHECKING:\n    import transformers", False),
    ],
)
def test_lazy_imports_are_told_apart(source: str, found: bool) -> None:
    assert ("transformers" in set(imports_of(top_level(ast.parse(source)), PACKAGE / "a.py"))) is found


@pytest.mark.parametrize(
    ("source", "file", "too_many"),
    [
        ("def f(a, b, c, d, e, f): ...", "a.py", False),
        ("def f(a, b, c, d, e, f, g): ...", "a.py", True),
        ("def f(a, b, c, d, e, f, *, g): ...", "a.py", True),
        ("def f(self, a, b, c, d, e, f): ...", "a.py", False),
        ("def forward(self, a, b, c, d, e, f, g): ...", "a.py", False),
        ("def f(a, b, c, d, e, f, g): ...", "hub/entries.py", False),
        ("def _f(a, b, c, d, e, f, g): ...", "hub/entries.py", True),
    ],
)
def test_arguments_are_counted(source: str, file: str, too_many: bool) -> None:
    assert has_too_many_arguments(PACKAGE / file, ast.parse(source).body[0]) is too_many
