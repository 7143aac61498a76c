"""Each fix of fairseq: needed before, harmless after, and the trouble it cures shown to be there without it."""

from __future__ import annotations

import argparse
import inspect
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PLUGIN, run
from fairseq import checkpoint_utils, utils
from fairseq.data import ListDataset, TokenBlockDataset, data_utils, token_block_dataset
from fairseq.dataclass.configs import DistributedTrainingConfig
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from omegaconf import OmegaConf

from lsg_fairseq import compat
from lsg_fairseq.compat import packages
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.modules.lsg_config import LSGError

# In a fresh interpreter: which fixes does this fairseq need before they are applied?
NEEDED = """
import sys
import fairseq, fairseq.options
sys.argv[0] = "fairseq-train"
from unittest import mock
sys.path.insert(0, {parent!r})
import importlib.util, types
package = types.ModuleType("lsg_fairseq")
package.__path__ = [{plugin!r}]
sys.modules["lsg_fairseq"] = package  # without its __init__, which applies the fixes
from lsg_fairseq import compat
print("needed:", *[fix.name for fix in compat.FIXES if fix.needed()])
print("applied:", *compat.apply_fixes())
print("still needed:", *[fix.name for fix in compat.FIXES if fix.needed()])
"""


def test_fixes_are_needed_once() -> None:
    printed = run(sys.executable, "-c", NEEDED.format(plugin=str(PLUGIN), parent=str(PLUGIN.parent)))
    lines = dict(line.split(":", 1) for line in printed.splitlines() if ":" in line)
    assert lines["needed"] == lines["applied"]
    assert lines["still needed"].strip() == ""
    always = {"checkpoints_weights_only", "longest_batch_kept", "bf16_without_tpu", "one_line_errors"}
    assert always <= set(lines["needed"].split())


def test_import_leaves_logging_alone() -> None:
    """fairseq's text-to-speech tasks set the root logger to DEBUG when they are imported."""
    code = (
        "import logging, lsg_fairseq; print(logging.getLogger().level == logging.WARNING, logging.getLogger().handlers)"
    )
    assert run(sys.executable, "-c", code).splitlines() == ["True []"]


@pytest.mark.parametrize("fix", compat.FIXES, ids=lambda fix: fix.name)
def test_fix_is_not_applied_twice(fix: compat.Fix) -> None:
    assert not fix.needed() or fix.name == "one_line_errors"  # that one is for fairseq's commands
    assert fix.issue


@pytest.mark.parametrize("count", [1, 3, 7, 8, 9, 20])
@pytest.mark.parametrize("limits", [{}, {"max_tokens": 40}, {"max_sentences": 4}])
def test_every_example_is_in_one_batch(count: int, limits: dict[str, int]) -> None:
    lengths = np.arange(1, count + 1)

    def batches(batch_by_size) -> list[np.ndarray]:
        return batch_by_size(np.arange(count), lengths.__getitem__, lengths, required_batch_size_multiple=8, **limits)

    assert np.concatenate(batches(data_utils.batch_by_size)).tolist() == list(range(count))


def test_stock_batching_loses_the_longest() -> None:
    stock = inspect.unwrap(data_utils.batch_by_size)
    lengths = np.ones(20, dtype=np.int64)
    assert sum(map(len, stock(np.arange(20), lengths.__getitem__, lengths, required_batch_size_multiple=8))) == 16


@pytest.mark.skipif(hasattr(np, "compat"), reason="this numpy has np.compat")
def test_blocks_of_one_sentence_need_no_old_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = ListDataset([torch.arange(length) for length in (3, 9, 5)], [3, 9, 5])

    def blocks() -> list[int]:
        dataset = TokenBlockDataset(sentences, sentences.sizes, 4, pad=1, eos=2, break_mode="eos")
        return [len(block) for block in dataset]

    assert blocks() == [3, 9, 5]
    monkeypatch.setattr(token_block_dataset, "np", np)
    with pytest.raises(AttributeError, match="compat"):
        blocks()


def test_no_examples_no_batches() -> None:
    assert data_utils.batch_by_size(np.arange(0), lambda index: 1, np.ones(0, np.int64)) == []


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("should-not-exist"),))


def test_checkpoint_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "extra": Payload()}, tmp_path / "evil.pt")
    for load in (load_checkpoint_file, checkpoint_utils.load_checkpoint_to_cpu):
        with pytest.raises(LSGError, match=r"evil\.pt is refused: it is a pickle that may run code"):
            load(str(tmp_path / "evil.pt"))
    assert not (tmp_path / "should-not-exist").exists()


def test_checkpoint_keeps_tensors_and_arguments(tmp_path: Path) -> None:
    saved = {"args": argparse.Namespace(a=1), "model": {"w": torch.ones(2)}, "best_loss": 1.5}
    torch.save(saved, tmp_path / "good.pt")
    loaded = load_checkpoint_file(tmp_path / "good.pt")
    assert loaded["args"] == saved["args"]
    assert torch.equal(loaded["model"]["w"], torch.ones(2))


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", pickle.dumps([1])[:-1]])
def test_what_is_no_checkpoint_is_said_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(LSGError, match=r"broken\.pt is (not a checkpoint|damaged)"):
        load_checkpoint_file(path)


def test_objects_between_workers_are_unpickled(tmp_path: Path) -> None:
    torch.save({"cfg": OmegaConf.create({"a": 1})}, tmp_path / "sent.pt")
    assert distributed_utils.torch.load(str(tmp_path / "sent.pt"))["cfg"].a == 1
    assert distributed_utils.torch.distributed is torch.distributed


def settings(**common: object) -> OmegaConf:
    defaults = {"bf16": False, "fp16": False, "fp16_no_flatten_grads": False, "tpu": True, "cpu": True}
    training = DistributedTrainingConfig(distributed_world_size=1, tpu=True)
    groups = {"common": {**defaults, **common}, "distributed_training": vars(training), "dataset": {"num_shards": 1}}
    groups["checkpoint"] = {"write_checkpoints_asynchronously": False}
    return OmegaConf.create({**groups, "model": None})


def test_bf16_and_fp16_settings_reach_main_mended() -> None:
    seen = []
    distributed_utils.call_main(settings(bf16=True), seen.append)
    distributed_utils.call_main(settings(fp16=True, tpu=False), seen.append)
    assert not seen[0].common.tpu
    assert not seen[0].distributed_training.tpu
    assert seen[1].common.fp16_no_flatten_grads


def test_ddp_on_cpu_gets_no_device_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", lambda module, **options: given.update(options))
    model = torch.nn.Linear(1, 1)
    distributed_fairseq_model.DistributedDataParallel(module=model, device_ids=[0], output_device=0)
    assert given["device_ids"] is None
    assert given["output_device"] is None


def test_user_dir_of_the_imported_package_is_accepted(tmp_path: Path) -> None:
    utils.import_user_module(argparse.Namespace(user_dir=str(tmp_path / "lsg_fairseq")))
    utils.import_user_module(OmegaConf.create({"user_dir": "lsg_fairseq"}))
    utils.import_user_module(OmegaConf.create({"user_dir": None}))
    with pytest.raises(LSGError):
        utils.import_user_module(argparse.Namespace(user_dir=str(tmp_path / "missing")))


def test_torchaudio_that_does_not_load_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> None:
            if name == "torchaudio":
                raise OSError("libcudart.so: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert packages.torchaudio_fails_to_load()
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    assert not packages.torchaudio_fails_to_load()
    with pytest.raises(ImportError):
        __import__("torchaudio")


def test_import_is_quick_and_offline() -> None:
    """No socket is opened by the import."""
    code = (
        "import socket; socket.socket.connect = None; socket.getaddrinfo = None; import lsg_fairseq; print('imported')"
    )
    assert run(sys.executable, "-c", code).strip() == "imported"


def test_old_official_fairseq_is_named(tmp_path: Path) -> None:
    (tmp_path / "fairseq").mkdir()
    (tmp_path / "fairseq" / "__init__.py").write_text("raise ValueError('mutable default is not allowed')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import lsg_fairseq"
    printed = run(sys.executable, "-c", code, check=False)
    build = "ve-fairseq==0.12.3" if sys.version_info < (3, 13) else "--no-build-isolation fairseq-fixed==0.12.3.1"
    assert f"pip uninstall fairseq && pip install {build}" in printed
