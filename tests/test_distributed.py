"""Several processes make one training: by torchrun, by flags, by Slurm; what they cannot do is one sentence."""

from __future__ import annotations

import json
import math
import re
import sys
import threading
from argparse import Namespace
from itertools import islice
from pathlib import Path

import pytest
import torch
from conftest import SUMMARIZATION, TINY, TRAINING, run
from fairseq.data import ListDataset
from fairseq.data.iterators import EpochBatchIterator
from test_commands import GENERATION, output_ids

from lsg_fairseq.compat import launching
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.processes import ProcessPlace, place_of

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "n[1-2]"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "5"}

# --- who this process is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        (TORCHRUN, ProcessPlace(1, 2, 1, "RANK and WORLD_SIZE")),
        (SRUN, ProcessPlace(3, 4, 1, "SLURM_PROCID and SLURM_STEP_NUM_TASKS")),
        (TORCHRUN | SRUN, ProcessPlace(1, 2, 1, "RANK and WORLD_SIZE")),
        (BATCH_SCRIPT, None),
        ({**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "3"}, None),
        ({"RANK": "0", "WORLD_SIZE": "2"}, ProcessPlace(0, 2, 0, "RANK and WORLD_SIZE")),
    ],
)
def test_place_among_the_processes(environment: dict[str, str], place: ProcessPlace | None) -> None:
    assert place_of(environment) == place


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2, but ranks are 0 to 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "ranks are 0 to 1"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK='first', which is not an integer"),
    ],
)
def test_an_environment_that_contradicts_itself(environment: dict[str, str], said: str) -> None:
    with pytest.raises(LSGError, match=said):
        place_of(environment)


# --- how it finds the others ----------------------------------------------------------------------------------------


def settings(**given: object) -> Namespace:
    flags = {"init_method": None, "world_size": 1, "rank": 0, "backend": "nccl", "port": -1, "no_spawn": False}
    return Namespace(**{f"distributed_{k}": v for k, v in {**flags, **given}.items()}, device_id=0)


def prepared(environment: dict[str, str], on_cpu: bool, **given: object) -> tuple[object, ...]:
    args = settings(**given)
    num_procs = launching.prepare(args, environment, on_cpu)
    names = ("init_method", "world_size", "rank", "backend", "no_spawn")
    return (num_procs, *(getattr(args, f"distributed_{name}") for name in names))


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("on_cpu", [True, False])
def test_torchrun_is_joined_whatever_the_number_of_gpus(world_size: int, on_cpu: bool) -> None:
    """Two machines of a GPU each have fairseq's default world size 1, which hid WORLD_SIZE from it."""
    backend = "gloo" if on_cpu else "nccl"
    joined = (None, "env://", 2, 1, backend, True)
    assert prepared(TORCHRUN, on_cpu, world_size=world_size) == joined
    assert prepared(TORCHRUN, on_cpu, world_size=world_size, init_method="env://") == joined


def test_a_rank_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    second_machine = {**TORCHRUN, "RANK": "13", "WORLD_SIZE": "16", "LOCAL_RANK": "5"}
    for visible, device in ((8, 5), (1, 0)):  # one GPU is visible where the launcher hides the others
        monkeypatch.setattr(torch.cuda, "device_count", lambda visible=visible: visible)
        args = settings(world_size=visible)
        launching.prepare(args, second_machine, on_cpu=False)
        assert (args.device_id, args.distributed_rank, args.distributed_world_size) == (device, 13, 16)


def test_flags_on_cpus() -> None:
    method = "tcp://127.0.0.1:29655"
    one_rank = (None, method, 2, 1, "gloo", True)
    assert prepared({}, True, init_method=method, world_size=2, rank=1) == one_rank
    num_procs, method, *rest = prepared({}, True, world_size=3)
    assert (num_procs, rest) == (3, [3, 0, "gloo", False])
    assert re.fullmatch(r"tcp://localhost:\d+", method)
    assert prepared({}, True) == (None, None, 1, 0, "gloo", False)
    assert prepared({}, False, world_size=2) == (None, None, 2, 0, "nccl", False)  # fairseq starts those


def test_srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scontrol").write_text("#!/bin/sh\n[ \"$3\" = 'n[1-2]' ] && echo n1 && echo n2\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert prepared(SRUN, True, port=123) == (None, "tcp://n1:123", 4, 3, "gloo", True)
    assert prepared(SRUN, False, port=123)[2] == 4  # which makes fairseq ask Slurm itself
    assert prepared(BATCH_SCRIPT, True) == prepared({}, True)


@pytest.mark.parametrize(
    ("environment", "given", "said"),
    [
        (TORCHRUN, {"world_size": 4}, "--distributed-world-size 4 does not fit the 2 processes that torchrun started"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, {}, "but not MASTER_ADDR and MASTER_PORT"),
        (SRUN, {}, "srun started 4 of these processes, and each would train a model of its own: add --distributed-p"),
        ({**SRUN, "PATH": ""}, {"port": 1}, "scontrol does not say which machines"),
        ({}, {"init_method": "tcp://a:1", "world_size": 2, "rank": 2}, "--distributed-rank 2 must be 0 to"),
        ({}, {"world_size": 2, "no_spawn": True}, "no-spawn in a world of 2 means several commands: say how they find"),
        (
            {},
            {"world_size": 2, "rank": 1},
            "rank 1 in a world of 2 means several commands: say how they find each other",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(environment: dict[str, str], given: dict[str, object], said: str) -> None:
    with pytest.raises(LSGError, match=said):
        prepared(environment, True, **given)


# --- one model ------------------------------------------------------------------------------------------------------


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint_file(folder / "checkpoint_last.pt")["model"]


def assert_same_model(one: Path, other: Path) -> None:
    expected = weights(other)
    assert weights(one).keys() == expected.keys()
    assert [name for name, tensor in weights(one).items() if not torch.equal(tensor, expected[name])] == []


def torchrun(*command: object, processes: int = 2, check: bool = True) -> str:
    return run("torchrun", "--nnodes=1", f"--nproc_per_node={processes}", "--master_port", launching._free_port(),
               Path(sys.executable).parent / "fairseq-train", *command, check=check)  # fmt: skip


BY_TWO = [*SUMMARIZATION, *TINY, *TRAINING, "--batch-size", 2, "--log-format", "json"]


@pytest.fixture(scope="module")
def spawned(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What fairseq's own spawning trains: the batches are of two epochs, and their number is odd."""
    folder = tmp_path_factory.mktemp("spawned")
    printed = run("fairseq-train", corpus, *BY_TWO, "--distributed-world-size", 2, "--save-dir", folder)
    assert printed.count('"train_loss"') == 1
    return folder


def test_torchrun_trains_one_model(corpus: Path, spawned: Path, tmp_path: Path) -> None:
    printed = torchrun(corpus, *BY_TWO, "--save-dir", tmp_path)
    assert printed.count('"train_loss"') == 1
    epoch = json.loads(re.search(r"\{.*train_num_updates.*\}", printed)[0])
    # 13 examples in batches of 2: the last update has one batch alone, for the first rank.
    assert round(float(epoch["train_bsz"]) * int(epoch["train_num_updates"])) == 13
    assert_same_model(tmp_path, spawned)


@pytest.mark.slow
def test_ranks_by_flags_train_one_model(corpus: Path, spawned: Path, tmp_path: Path) -> None:
    method = ["--distributed-init-method", f"tcp://127.0.0.1:{launching._free_port()}", "--distributed-world-size", 2]
    commands = [
        ("fairseq-train", corpus, *BY_TWO, *method, "--distributed-rank", rank, "--save-dir", tmp_path)
        for rank in range(2)
    ]
    other = threading.Thread(target=run, args=commands[1])
    other.start()
    run(*commands[0])
    other.join()
    assert_same_model(tmp_path, spawned)


@pytest.mark.slow
def test_legacy_ddp_trains_the_same_to_rounding(corpus: Path, spawned: Path, tmp_path: Path) -> None:
    torchrun(corpus, *BY_TWO, "--ddp-backend", "legacy_ddp", "--save-dir", tmp_path)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, weights(spawned)[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_rank_more_is_an_accumulated_batch_less(corpus: Path, tmp_path: Path) -> None:
    """Without dropout, whose masks belong to a rank."""
    flags = [*BY_TWO, "--dropout", 0, "--attention-dropout", 0]
    torchrun(corpus, *flags, "--save-dir", tmp_path / "two")
    run("fairseq-train", corpus, *flags, "--update-freq", 2, "--save-dir", tmp_path / "one")
    expected = weights(tmp_path / "one")
    for name, tensor in weights(tmp_path / "two").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_resuming_with_another_number_of_ranks_reads_each_example_once(
    before: int, after: int, corpus: Path, tmp_path: Path
) -> None:
    """Stopped in the middle of an epoch: of 7 batches, 4 are done."""
    folder, flags = tmp_path / "saved", ["--required-batch-size-multiple", 1, "--save-dir", tmp_path / "saved"]
    run("fairseq-train", corpus, *BY_TWO, *flags, "--distributed-world-size", before, "--max-update", 4 // before)
    position = load_checkpoint_file(folder / "checkpoint_last.pt")["extra_state"]["train_iterator"]
    assert position["iterations_in_epoch"] * before == 4
    printed = run("fairseq-train", corpus, *BY_TWO, *flags, "--distributed-world-size", after)
    assert f"with {after} processes instead of {before}" in printed
    resumed = load_checkpoint_file(folder / "checkpoint_last.pt")
    assert resumed["optimizer_history"][-1]["num_updates"] == 4 // before + math.ceil(3 / after)


def iterator(shards: int, shard: int = 0, batches: int = 7, grouped: bool = False) -> EpochBatchIterator:
    return EpochBatchIterator(
        ListDataset(list(range(batches))), collate_fn=list, batch_sampler=[[i] for i in range(batches)], seed=1,
        num_shards=shards, shard_id=shard, grouped_shuffling=grouped,
    )  # fmt: skip


def read(itr: EpochBatchIterator, count: int | None = None) -> list[int]:
    return [number for batch in islice(itr.next_epoch_itr(), count) for number in batch]


@pytest.mark.parametrize(
    ("before", "done", "after"), [(1, 4, 2), (2, 2, 1), (2, 2, 3), (4, 1, 2), (1, 5, 2), (2, 3, 4)]
)
def test_the_position_in_the_data_fits_another_world_size(before: int, done: int, after: int) -> None:
    first = [iterator(before, shard) for shard in range(before)]
    seen = [number for itr in first for number in read(itr, done)]
    rest = []
    for shard in range(after):
        itr = iterator(after, shard)
        itr.load_state_dict(first[0].state_dict())
        rest += read(itr)
    assert sorted({*seen, *rest}) == list(range(7))
    # Where the ranks do not divide what was done, less than a batch a rank is read again, rather than left out.
    assert len(seen) + len(rest) - 7 < after


def test_a_position_that_cannot_be_fitted_is_one_sentence() -> None:
    itr = iterator(2, grouped=True)
    read(itr, 2)
    with pytest.raises(LSGError, match=r"begun with 2 processes .* --reset-dataloader"):
        iterator(1, grouped=True).load_state_dict(itr.state_dict())
    older = {name: value for name, value in itr.state_dict().items() if name != "num_shards"}
    resumed = iterator(2, grouped=True)
    resumed.load_state_dict(older)
    assert resumed.n == 2


# --- flags that cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "on_cpu", "has_fairscale", "said"),
    [
        ({"ddp_backend": "fully_sharded"}, True, True, "--ddp-backend fully_sharded needs GPUs"),
        ({"ddp_backend": "slowmo"}, True, False, "--ddp-backend slowmo needs GPUs"),
        ({"ddp_backend": "fully_sharded"}, False, False, "needs the package fairscale"),
        ({"zero_sharding": "os"}, True, False, "--zero-sharding os needs the package fairscale"),
        ({"zero_sharding": "os"}, True, True, None),
        ({"ddp_backend": "fully_sharded"}, False, True, None),
        ({}, True, False, None),
    ],
)
def test_backends(given: dict[str, str], on_cpu: bool, has_fairscale: bool, said: str | None) -> None:
    flags = Namespace(**{"ddp_backend": "pytorch_ddp", "zero_sharding": "none", **given})
    if said is None:
        launching.refuse_backends(flags, on_cpu, has_fairscale)
        return
    with pytest.raises(LSGError, match=said):
        launching.refuse_backends(flags, on_cpu, has_fairscale)


def test_saving_asynchronously_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "find_spec", lambda name: None)
    launching.refuse_asynchronous_saving(False)
    with pytest.raises(LSGError, match="--save-async needs the package iopath"):
        launching.refuse_asynchronous_saving(True)


def test_pipelines_are_refused(corpus: Path, tmp_path: Path) -> None:
    flags = [*BY_TWO, "--pipeline-model-parallel", "--save-dir", tmp_path]
    printed = run("fairseq-train", corpus, *flags, check=False)
    assert "fairseq-train: error: --pipeline-model-parallel: lsg_bart_small cannot be cut into stages" in printed
    assert "Traceback" not in printed
    launching.refuse_pipelines(True, "pipeline_parallel_transformer_iwslt_de_en")


# --- shards of a generation -----------------------------------------------------------------------------------------


def shard_flags(**given: int) -> Namespace:
    plain = {"num_shards": 1, "shard_id": 0, "distributed_world_size": 1, "distributed_rank": 0}
    return Namespace(**{**plain, **given}, pipeline_model_parallel=False)


def test_shards_of_a_generation_are_told_apart() -> None:
    flags = shard_flags(num_shards=4, shard_id=3)
    launching.take_shard(flags)
    assert (flags.distributed_world_size, flags.distributed_rank) == (4, 3)
    flags = shard_flags(distributed_world_size=2, distributed_rank=1)
    launching.take_shard(flags)
    assert (flags.distributed_world_size, flags.distributed_rank) == (2, 1)
    for wrong in ({"num_shards": 2, "shard_id": 2}, {"shard_id": 1}, {"num_shards": 2, "distributed_world_size": 2}):
        with pytest.raises(LSGError, match="--num-shards"):
            launching.take_shard(shard_flags(**wrong))


def test_fairseq_generate_generates_its_shard(corpus: Path, checkpoints: Path) -> None:
    ids = []
    for shard in range(2):
        printed = run("fairseq-generate", corpus, *SUMMARIZATION, "--path", checkpoints / "checkpoint_best.pt",
                      *GENERATION, "--batch-size", 2, "--num-shards", 2, "--shard-id", shard)  # fmt: skip
        ids.append(output_ids(printed))
    assert sorted(ids[0] + ids[1]) == list(range(11))
    assert 3 <= len(ids[0]) <= 8
