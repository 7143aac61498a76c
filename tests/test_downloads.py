"""Checkpoints from the hub: which files, from where, and what happens when something goes wrong on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import FakeHub, serve, use_environment
from reference_checkpoints import REFERENCE
from safetensors.torch import load_file

from lsg_fairseq import hub
from lsg_fairseq.checkpoints.ready import cache_folder
from lsg_fairseq.modules.lsg_config import LSGError

REPO = "someone/lsg-bart-tiny"
BART = REFERENCE / "models" / "bart_lsg"
TEXT = "the cat sat on a mat near the river " * 20
LIMITS = {"beam": 2, "min_len": 3, "max_len_b": 6}


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve(FakeHub.from_folder(REPO, BART)) as running:
        use_environment(monkeypatch, HF_ENDPOINT=running.url, HF_HOME=tmp_path / "hf", TORCH_HOME=tmp_path / "torch")
        yield running


def test_only_what_is_needed_is_fetched_once(fake_hub: FakeHub) -> None:
    lsg = hub.lsg_bart_base(REPO)
    wanted = {"config.json", "generation_config.json", "model.safetensors", "vocab.json", "merges.txt"}
    assert wanted <= fake_hub.fetched()
    assert not fake_hub.fetched() & {"modeling_lsg_bart.py", "training_args.bin", "README.md"}
    fake_hub.requests.clear()
    again = hub.lsg_bart_base(REPO)
    assert fake_hub.fetched() == set()
    assert again.summarize(TEXT, **LIMITS) == lsg.summarize(TEXT, **LIMITS)
    assert again.summarize(TEXT, **LIMITS) == hub.lsg_bart_base(BART).summarize(TEXT, **LIMITS)


def test_dropped_connection_is_resumed(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    # What arrived is kept in chunks of 10 MB, more than this file has.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    fake_hub.drop_once = {"model.safetensors"}
    hub.lsg_bart_base(REPO)
    ranges = [asked for method, path, asked in fake_hub.requests if method == "GET" and path.endswith(".safetensors")]
    half = len(fake_hub.files["model.safetensors"]) // 2
    assert ranges == [None, f"bytes={half >> 16 << 16}-"]


def test_wrong_hash_is_refused_and_fetched_again(fake_hub: FakeHub) -> None:
    fake_hub.damaged = {"model.safetensors"}
    with pytest.raises(LSGError, match=r"model.safetensors of someone/lsg-bart-tiny arrived damaged \(wrong hash\)"):
        hub.lsg_bart_base(REPO)
    assert not any(path.is_dir() for path in cache_folder().iterdir())
    fake_hub.damaged = set()
    hub.lsg_bart_base(REPO)


def test_missing_things_are_one_sentence(fake_hub: FakeHub) -> None:
    with pytest.raises(LSGError, match="someone/else is neither a path here nor a repository on the Hugging Face hub"):
        hub.lsg_bart_base("someone/else")
    with pytest.raises(LSGError, match="someone/lsg-bart-tiny has no revision 'v2': give a branch, a tag or a commit"):
        hub.lsg_bart_base(REPO, revision="v2")
    fake_hub.missing = {"vocab.json"}
    with pytest.raises(LSGError, match=r"vocab.json of someone/lsg-bart-tiny does not exist on the hub"):
        hub.lsg_bart_base(REPO)
    del fake_hub.files["model.safetensors"]
    with pytest.raises(LSGError, match=r"has no weights: one of model.safetensors, .* must be in the repository"):
        hub.lsg_bart_base(REPO)


def test_no_network_uses_what_is_there(fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = hub.lsg_bart_base(REPO).summarize(TEXT, **LIMITS)
    homes = {"HF_HOME": tmp_path / "hf", "TORCH_HOME": tmp_path / "torch"}
    use_environment(monkeypatch, HF_ENDPOINT="http://127.0.0.1:9", **homes)
    assert hub.lsg_bart_base(REPO).summarize(TEXT, **LIMITS) == expected
    fake_hub.requests.clear()
    use_environment(monkeypatch, HF_ENDPOINT=fake_hub.url, HF_HUB_OFFLINE=1, **homes)
    # The files are still there when the conversion's result is not.
    shutil.rmtree(tmp_path / "torch")
    assert hub.lsg_bart_base(REPO).summarize(TEXT, **LIMITS) == expected
    assert fake_hub.requests == []
    with pytest.raises(LSGError, match="someone/other is neither a path here nor in the cache, and the hub cannot be"):
        hub.lsg_bart_base("someone/other")


def test_revision_pins_a_commit(fake_hub: FakeHub) -> None:
    old = fake_hub.commit
    hub.lsg_bart_base(REPO, revision=old)
    assert all("main" not in path for _, path, _ in fake_hub.requests)
    # A new commit is another key, and so another conversion.
    fake_hub.commit = "d" * 40
    hub.lsg_bart_base(REPO)
    folders = [path for path in cache_folder().iterdir() if path.is_dir()]
    assert len(folders) == 2


def test_options_of_the_conversion_are_in_the_key(fake_hub: FakeHub) -> None:
    assert hub.lsg_bart_base(REPO).model.max_positions()[0] == 512
    longer = hub.lsg_bart_base(REPO, max_source_positions=1024, block_size=64, sparse_block_size=64)
    assert longer.model.max_positions()[0] == 1024
    assert longer.model.encoder.lsg_config.block_size == 64


@pytest.mark.parametrize("subfolder", ["", "shards/"])
def test_shards_and_pickles(subfolder: str, fake_hub: FakeHub) -> None:
    state = load_file(BART / "model.safetensors")
    del fake_hub.files["model.safetensors"]
    names, weight_map = sorted(state), {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{subfolder}pytorch_model-0000{number}-of-00002.bin"
        fake_hub.files[file] = saved({name: state[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    fake_hub.files["pytorch_model.bin.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    lsg = hub.lsg_bart_base(REPO)
    assert lsg.summarize(TEXT, **LIMITS) == hub.lsg_bart_base(BART).summarize(TEXT, **LIMITS)
    fake_hub.commit = "e" * 40
    fake_hub.files[f"{subfolder}pytorch_model-00001-of-00002.bin"] = saved({"model.shared.weight": print})
    with pytest.raises(LSGError, match="was refused: it is damaged or holds something other than tensors"):
        hub.lsg_bart_base(REPO)


def saved(value: object) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_two_processes_convert_once(fake_hub: FakeHub, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from lsg_fairseq import hub\n"
        "print(repr(hub.lsg_bart_base(sys.argv[1]).summarize(sys.argv[2], beam=2, min_len=3, max_len_b=6)))\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, REPO, TEXT]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=env, cwd=tmp_path, **pipes) for _ in range(2)]
    printed = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert printed[0][0].splitlines()[-1] == printed[1][0].splitlines()[-1]
    gets = [path for method, path, _ in fake_hub.requests if method == "GET" and path.endswith("model.safetensors")]
    assert len(gets) == 1
    assert not list(cache_folder().glob(".*partial*"))


def test_what_a_killed_conversion_left_is_removed(fake_hub: FakeHub) -> None:
    hub.lsg_bart_base(REPO)
    folder = next(path for path in cache_folder().iterdir() if path.is_dir())
    (folder / "model.pt").unlink()
    left = folder.parent / f".{folder.name}.partial-1"
    left.mkdir()
    (left / "model.pt").write_bytes(b"half")
    hub.lsg_bart_base(REPO)
    assert not left.exists()
    assert (folder / "model.pt").is_file()
