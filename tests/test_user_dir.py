"""--user-dir of the commands: a module of one's own is imported when it is named, and not otherwise."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, run, write_jsonl
from fairseq import models, utils
from reference_checkpoints import REFERENCE

from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model, model_arguments
from lsg_fairseq.commands import convert, export, summarize
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.modules.registry import SPARSE_SELECTIONS

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")
SHORT = REFERENCE / "models" / "bart_n1024_short"
BLOCKS = ["--block-size", "16", "--sparse-block-size", "16"]
NAME = "selection_of_the_docs"
# Same weights, another output: what a conversion must not lose is the flag.
ARCHITECTURE = """

from fairseq.models import register_model, register_model_architecture
from lsg_fairseq.models.lsg_bart import LSGBartModel, lsg_bart_base_architecture


@register_model("my_bart")
class MyBart(LSGBartModel):
    @classmethod
    def add_args(cls, parser):
        super().add_args(parser)
        parser.add_argument("--my-scale", type=float)


@register_model_architecture("my_bart", "my_bart_base")
def my_bart_base(args):
    args.my_scale = getattr(args, "my_scale", None) or 1.0
    lsg_bart_base_architecture(args)
"""


@pytest.fixture
def user_dir(tmp_path: Path) -> Path:
    """docs/extending.md's selection, and an architecture."""
    code = re.search(r"```python\n(.*?)```", (REPOSITORY / "docs" / "extending.md").read_text(), re.S)[1]
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "__init__.py").write_text(code + ARCHITECTURE)
    return folder


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Make this process one that has not imported it: called by a test, and after it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    registries = (SPARSE_SELECTIONS, models.MODEL_REGISTRY, models.ARCH_MODEL_REGISTRY, models.ARCH_CONFIG_REGISTRY,
                  models.ARCH_MODEL_NAME_REGISTRY, models.ARCH_MODEL_INV_REGISTRY)  # fmt: skip
    before = [dict(registry) for registry in registries]
    memo = set(getattr(utils.import_user_module, "memo", set()))

    def restore() -> None:
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)
        utils.import_user_module.memo = set(memo)
        sys.modules.pop(NAME, None)

    yield restore
    restore()


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command's main function, and return its exit status and what it printed."""

    def call(command: object, *words: object) -> str:
        status = command.main([str(word) for word in words])
        captured = capsys.readouterr()
        return f"{status} {captured.out}{captured.err}"

    return call


def test_a_selection(user_dir: Path, forget: Callable[[], None], ask: Callable[..., str], tmp_path: Path) -> None:
    """Converted, summarised with, exported and read again."""
    out, hf, flag = tmp_path / "out", tmp_path / "hf", ["--user-dir", user_dir]
    documents = write_jsonl(tmp_path / "documents.jsonl", [80, 20], seed=0, summaries=False)
    wanted = [SHORT, out, *BLOCKS, "--sparsity-type", "every_other"]
    names = "block_stride, bos_pooling, lsh, norm, pooling, stride, none"
    hint = "or have the module that registers it imported first (--user-dir DIR; in Python, import it)"
    refusal = f"sparsity_type 'every_other' is not registered; choose from {names}, {hint}\n"
    assert ask(convert, *wanted) == f"1 lsg-convert: error: {refusal}"
    assert ask(convert, *wanted, *flag).startswith("0 ")
    forget()
    summarizing = [documents, "--checkpoint", out, "--jsonl", "--quiet", "--max-len-b", "4"]
    assert refusal in ask(summarize, *summarizing)
    printed = run("lsg-summarize", *summarizing, *flag)
    assert printed.count('"summary": ') == 2
    assert ask(export, out, hf) == f"1 lsg-export: error: {refusal}"
    told = ask(export, out, hf, *flag)
    assert told.startswith("0 transformers' LSG code has no sparsity_type 'every_other'")
    assert json.loads((hf / "config.json").read_text())["sparsity_type"] == "every_other"
    forget()
    assert refusal in ask(convert, hf, tmp_path / "again")
    assert ask(convert, hf, tmp_path / "again", *flag).startswith("0 ")


def test_an_architecture(user_dir: Path, forget: Callable[[], None], ask: Callable[..., str], tmp_path: Path) -> None:
    """Its own flags come through a conversion, which makes it longer."""
    out, longer, flag = tmp_path / "out", tmp_path / "longer", ["--user-dir", user_dir]
    assert ask(convert, SHORT, out, *BLOCKS, "--max-source-positions", 1024).startswith("0 ")
    state = load_checkpoint_file(str(out / "model.pt"))
    named = {"arch": "my_bart_base", "_name": "my_bart_base", "my_scale": 0.5, "user_dir": str(user_dir)}
    vars(state["cfg"]["model"]).update(named)
    torch.save(state, out / "model.pt")
    lengthened = ["--max-source-positions", 2048]
    told = ask(convert, out, longer, *lengthened)
    assert "is a 'my_bart_base' model" in told
    assert "--user-dir DIR; in Python, import it" in told
    asked = ask(summarize, write_jsonl(tmp_path / "d.jsonl", [9], seed=0), "--checkpoint", out, "--quiet")
    assert "asks for the architecture 'my_bart_base'" in asked
    assert "--user-dir DIR" in asked
    assert "is a 'my_bart_base' model" in ask(export, out, tmp_path / "hf")
    assert NAME not in sys.modules, "what a checkpoint names is not imported"
    assert ask(convert, out, longer, *lengthened, *flag).startswith("0 ")
    assert ask(export, out, tmp_path / "hf", *flag).startswith("0 ")
    kept = model_arguments(load_checkpoint_file(str(longer / "model.pt")))
    assert (kept.arch, kept.my_scale) == ("my_bart_base", 0.5)
    _, model, _ = load_task_and_model(CheckpointFiles(longer / "model.pt", longer, longer / "tokenizer"), Overrides())
    assert type(model).__name__ == "MyBart"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist: name the folder of a Python package"),
        ("1 / 0", "cannot be imported (ZeroDivisionError: division by zero): fix it, or leave it out"),
        (
            "import no_such_module_here",
            "cannot be imported (ModuleNotFoundError: No module named 'no_such_module_here')",
        ),
    ],
)
def test_what_cannot_be_imported(
    content: str | None, told: str, forget: Callable[[], None], ask: Callable[..., str], tmp_path: Path
) -> None:
    folder = tmp_path / NAME
    if content is not None:
        folder.mkdir()
        (folder / "__init__.py").write_text(content)
    for command, words in ((convert, [SHORT, tmp_path / "o"]), (export, [SHORT, tmp_path / "o"]), (summarize, [SHORT])):
        assert f"error: --user-dir {folder} {told}" in ask(command, *words, "--user-dir", folder)
        forget()


def test_a_folder_that_was_imported_already(ask: Callable[..., str], tmp_path: Path) -> None:
    """README's --user-dir lsg_fairseq, by habit: nothing to do."""
    assert ask(convert, SHORT, tmp_path / "o", "--dry-run", "--user-dir", "lsg_fairseq").startswith("0 ")
