"""lsg-plan: kept bytes are those that autograd saves, parts follow from dtype and flags, and what fits is the most."""

from __future__ import annotations

import json
import weakref
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import label_smoothed_nll_loss
from fairseq.models import ARCH_CONFIG_REGISTRY
from fairseq.optim.adafactor import Adafactor
from fairseq.optim.adam import Adam
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lsg_fairseq.commands.plan import main
from lsg_fairseq.models.lsg_decoder import give_weights
from lsg_fairseq.modules import block_attention
from lsg_fairseq.modules.fused_cpu_attention import is_available
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.planning.activations import layers_of
from lsg_fairseq.planning.memory import COPIES, GRADIENTS, PARAMETERS, STATE, most_rows, optimizer_state, plan, standing
from lsg_fairseq.planning.setup import (
    BACKENDS,
    Batch,
    Machine,
    Model,
    Setup,
    batch_of,
    choose_backend,
    parse_flags,
    read_model,
    read_setup,
    short_documents,
)
from recipes.tiny_models import TINY_SIZES, build_model

SOURCE, TARGET, WORDS = 64, 24, 64
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Those of recipes.tiny_models, which leaves target positions to the architecture.
SIZES = {"lsg_block_size": 8, "lsg_sparse_block_size": 8, "lsg_sparsity_factor": 2, "max_target_positions": 64}
DROPOUT = {"attention_dropout": 0.1, "activation_dropout": 0.1}
TINY_FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY_SIZES.items()]
TINY_FLAGS += ["--arch", "lsg_bart_small", "--max-source-positions", "256", "--max-target-positions", "32"]
TINY_FLAGS += ["--lsg-block-size", "8", "--lsg-sparse-block-size", "8"]


def model_of(arch: str, flags: dict[str, object]) -> Model:
    args = Namespace(arch=arch, **{**TINY_SIZES, "max_source_positions": 256, **SIZES, **flags})
    ARCH_CONFIG_REGISTRY[arch](args)
    return read_model(args, WORDS)


def built(arch: str, flags: dict[str, object]) -> torch.nn.Module:
    return build_model(arch, max_target_positions=64, **flags)


def setup_of(model: Model, dtype: str, rows: int) -> Setup:
    backend = choose_backend(Machine("cpu"), model, dtype)
    fixed = {"optimizer": "adam", "is_flat": False, "has_first_moment": True, "accumulates": False, "world_size": 1}
    batch = Batch(rows, SOURCE, TARGET)
    return Setup(model, batch, dtype, False, False, backend, **fixed, ddp_backend="pytorch_ddp", zero_sharding="none")


def planned_bytes(setup: Setup) -> int:
    checkpoints = setup.model.checkpoints
    return sum(
        layer.inputs if checkpoints and layer.inputs else sum(step.kept for step in layer.steps)
        for layer in layers_of(setup)
    )


def saved_bytes(model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Storages that a forward saves, each counted once; those of parameters and buffers are there anyway."""
    own = {x.untyped_storage().data_ptr() for x in [*model.parameters(), *model.buffers()]}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        # Kept, so that no later tensor can have the same address.
        saved.setdefault(x.untyped_storage().data_ptr(), x.untyped_storage())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        forward()
    return sum(storage.nbytes() for address, storage in saved.items() if address not in own)


def loss_of(model: torch.nn.Module, rows: int) -> torch.Tensor:
    source, target = (torch.randint(4, 60, (rows, length)) for length in (SOURCE, TARGET))
    log_probs = model.get_normalized_probs(model(source, None, target), True)
    return label_smoothed_nll_loss(log_probs.view(-1, WORDS), target.view(-1), 0.1, 1)[0]


@pytest.mark.parametrize(
    ("arch", "dtype", "rows", "flags"),
    [
        ("lsg_bart_small", "fp32", 1, {}),
        ("lsg_bart_small", "fp32", 2, DROPOUT),
        ("lsg_bart_small", "bf16", 2, {}),
        ("lsg_bart_small", "bf16", 2, DROPOUT),
        ("lsg_bart_small", "bf16", 2, {"checkpoint_activations": True}),
        ("lsg_bart_small", "bf16", 2, {"lsg_attention": "full", **DROPOUT}),
        ("lsg_bart_small", "fp32", 2, {"lsg_block_size": 32}),
        ("lsg_bart_small", "fp32", 2, {"lsg_sparsity_factor": 1}),
        ("lsg_bart_small", "fp32", 2, {"lsg_num_global_tokens": 5}),
        *(("lsg_bart_small", "fp32", 2, {"lsg_sparsity_type": name}) for name in ("none", "stride", "block_stride")),
        *(("lsg_bart_small", "bf16", 2, {"lsg_sparsity_type": name}) for name in ("pooling", "bos_pooling", "lsh")),
        ("lsg_pegasus_small", "fp32", 2, {"attention_dropout": 0.0, "activation_dropout": 0.0}),
        ("lsg_pegasus_small", "bf16", 2, {}),
        ("lsg_pegasus_small", "fp16", 2, {}),
        ("lsg_pegasus_small", "fp32", 1, {"checkpoint_activations": True}),
        ("lsg_mbart_base", "bf16", 2, DROPOUT),
    ],
)
def test_kept_bytes_are_those_that_autograd_saves(arch: str, dtype: str, rows: int, flags: dict[str, object]) -> None:
    assert is_available()  # its probe saves tensors, too, if it runs first here
    model = built(arch, flags).to(DTYPES[dtype]).train()
    saved = saved_bytes(model, lambda: loss_of(model, rows))
    # A few masks of padding, of one byte a token, are not counted.
    assert planned_bytes(setup_of(model_of(arch, flags), dtype, rows)) == pytest.approx(saved, rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "flags"), [("fp32", {}), ("bf16", DROPOUT), ("bf16", {"checkpoint_activations": True})]
)
def test_weights_that_nobody_reads_are_not_kept(dtype: str, flags: dict[str, object]) -> None:
    model = built("lsg_bart_small", flags).to(DTYPES[dtype]).train()
    setup = setup_of(model_of("lsg_bart_small", flags), dtype, rows=2)
    give_weights(model, False)
    planned = planned_bytes(replace(setup, reads_weights=False))
    assert planned == pytest.approx(saved_bytes(model, lambda: loss_of(model, 2)), rel=1e-3)


def test_weights_that_are_read_take_memory() -> None:
    setup = replace(setup_of(model_of("lsg_bart_small", DROPOUT), "bf16", rows=2), is_cuda=True)
    assert planned_bytes(replace(setup, reads_weights=False)) < planned_bytes(setup)


class LiveBytes(TorchDispatchMode):
    """Counts storages while they live: `now`, and the most there ever were at a time, `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., object], types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.track(x.untyped_storage())
        return result

    def track(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self._seen:
            return

        def forget(_: object) -> None:
            del self._seen[address]
            self.now -= size

        self._seen[address] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


@pytest.mark.parametrize(
    ("arch", "dtype", "rows", "batches", "flags"),
    [
        ("lsg_bart_small", "fp32", 1, 1, {}),
        ("lsg_bart_small", "bf16", 4, 2, DROPOUT),
        ("lsg_bart_small", "bf16", 4, 2, {"checkpoint_activations": True}),
        ("lsg_pegasus_small", "fp32", 2, 1, {}),
    ],
)
def test_the_peak_is_that_of_two_updates(
    arch: str, dtype: str, rows: int, batches: int, flags: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor that lives in two updates; real sizes are benchmarks/plan.py's business."""
    monkeypatch.setattr(f"{__name__}.SOURCE", 256)
    monkeypatch.setattr(f"{__name__}.TARGET", 64)
    model = built(arch, flags).to(DTYPES[dtype]).train()
    optimizer, live = Adam(list(model.parameters())), LiveBytes()
    for x in (*model.parameters(), *model.buffers()):
        live.track(x.untyped_storage())
    with live:
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            for _ in range(batches):
                loss_of(model, rows).backward()
            optimizer.step()
    # fairseq's Adam as it is, without float32 copies of parameters.
    setup = replace(setup_of(model_of(arch, flags), dtype, rows), is_memory_efficient=True, accumulates=batches > 1)
    assert plan(setup).peak == pytest.approx(live.peak, rel=0.1)


def test_parameters_are_the_models() -> None:
    model = built("lsg_pegasus_small", {})
    planned = model_of("lsg_pegasus_small", {})
    assert planned.parameters == sum(p.numel() for p in model.parameters())
    assert sorted(planned.shapes) == sorted(tuple(p.shape) for p in model.parameters())
    for stack, layers in ((planned.encoder, model.encoder.layers), (planned.decoder, model.decoder.layers)):
        assert stack.layers * stack.layer_parameters == sum(p.numel() for p in layers.parameters())


@pytest.mark.parametrize(
    ("name", "build", "has_first_moment"),
    [
        ("adam", lambda params: Adam(params), True),
        ("adafactor", lambda params: Adafactor(params), False),
        ("adafactor", lambda params: Adafactor(params, lr=1e-3, relative_step=False, beta1=0.9), True),
    ],
)
def test_optimizer_state_is_what_the_optimizer_makes(
    name: str, build: Callable[..., torch.optim.Optimizer], has_first_moment: bool
) -> None:
    model = built("lsg_bart_small", {})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = build(list(model.parameters()))
    optimizer.step()
    tensors = [x for state in optimizer.state.values() for x in state.values() if torch.is_tensor(x) and x.dim()]
    setup = setup_of(model_of("lsg_bart_small", {}), "fp32", 1)
    setup = replace(setup, optimizer=name, has_first_moment=has_first_moment)
    assert optimizer_state(setup) == sum(x.nbytes for x in tensors)


def planned(*flags: str, device: str = "cuda") -> Setup:
    return read_setup(parse_flags([*TINY_FLAGS, "--max-tokens", "1024", *flags]), Machine(device, vocabulary=WORDS))


@pytest.mark.parametrize(
    ("flags", "parameters", "copies", "state"),
    [
        ([], 4, 0, 8),
        (["--fp16"], 2, 8, 8),
        (["--bf16"], 2, 8, 8),
        (["--memory-efficient-fp16"], 2, 0, 8),
        (["--memory-efficient-bf16"], 2, 0, 8),
    ],
)
def test_bytes_of_a_parameter(flags: list[str], parameters: int, copies: int, state: int) -> None:
    """What fairseq's optimizers make: fp32_params and their gradients, unless memory-efficient."""
    setup = planned(*flags)
    parts, numbers = standing(setup), setup.model.parameters
    assert [parts.get(name, 0) for name in (PARAMETERS, COPIES, STATE)] == [
        each * numbers for each in (parameters, copies, state)
    ]
    # From the second batch of an update on, all gradients are there.
    assert plan(replace(setup, accumulates=True)).parts[GRADIENTS] == parameters * numbers


def test_more_processes_share_the_optimizer_out() -> None:
    alone = planned()
    whole, shared, sharded = (
        standing(planned("--distributed-world-size", "8", *flags))
        for flags in ([], ["--zero-sharding", "os"], ["--ddp-backend", "fully_sharded"])
    )
    assert whole[STATE] == standing(alone)[STATE] == 8 * alone.model.parameters
    assert shared[STATE] == sharded[STATE] == whole[STATE] // 8
    assert shared[PARAMETERS] == whole[PARAMETERS] == 8 * sharded[PARAMETERS]


def test_checkpointing_keeps_less_and_more_rows_take_more() -> None:
    kept, checkpointed = (planned(*flags).with_rows(4) for flags in ([], ["--checkpoint-activations"]))
    assert plan(checkpointed).peak < plan(kept).peak < plan(kept.with_rows(5)).peak
    assert sum(plan(checkpointed).kept.values()) < 0.5 * sum(plan(kept).kept.values())


@pytest.mark.parametrize("flags", [[], ["--bf16", "--update-freq", "2"], ["--checkpoint-activations"]])
def test_the_largest_batch_that_fits_is_the_largest(flags: list[str]) -> None:
    setup = planned(*flags)
    limit = plan(setup.with_rows(37)).peak
    assert most_rows(setup, limit) == 37
    assert most_rows(setup, limit - 1) == 36
    assert most_rows(setup, plan(setup.with_rows(1)).peak - 1) == 0


@pytest.mark.parametrize(
    ("flags", "longest", "short"),
    [
        (["--max-tokens", "1024"], (4, 256, 32), (32, 32, 32)),
        (["--max-tokens", "1024", "--batch-size", "3"], (3, 256, 32), (3, 32, 32)),
        (["--batch-size", "5"], (5, 256, 32), None),
    ],
)
def test_batches(flags: list[str], longest: tuple[int, ...], short: tuple[int, ...] | None) -> None:
    args = parse_flags([*TINY_FLAGS, *flags])
    assert batch_of(args) == longest
    assert short_documents(args) == short


@pytest.mark.parametrize(
    ("flags", "device", "backend"),
    [
        ([], "cuda", "flex"),
        (["--attention-dropout", "0.1", "--bf16"], "cuda", "triton"),
        (["--attention-dropout", "0.1"], "cuda", "chunked"),
        ([], "cpu", "fused_cpu"),
        (["--attention-dropout", "0.1"], "cpu", "chunked"),
    ],
)
def test_the_backend_is_the_one_that_is_chosen_there(flags: list[str], device: str, backend: str) -> None:
    assert planned(*flags, device=device).backend == backend
    assert tuple(block_attention.BACKENDS) == BACKENDS


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--batch-size or --max-tokens"),
        (["--max-tokens", "255"], "--max-tokens 256 or more"),
        (["--batch-size", "0"], "--batch-size must be an integer from 1 to"),
        (["--batch-size", "1", "--amp"], "--amp"),
        (["--batch-size", "1", "--freeze-encoder"], "--freeze-encoder"),
        (["--batch-size", "1", "--optimizer", "sgd"], "adam and adafactor"),
        (["--batch-size", "1", "--arch", "lsg_roberta_base"], "encoder-decoders"),
        (["--batch-size", "1", "--decoder-layers", "0"], "without layers"),
        (["--batch-size", "1", "--no-such-flag"], "no such flag for lsg_bart_small: --no-such-flag"),
        (["--batch-size", "1", "--fp16", "--zero-sharding", "os"], "--fp16-no-flatten-grads"),
    ],
)
def test_what_makes_no_sense_is_refused(flags: list[str], said: str) -> None:
    with pytest.raises(LSGError, match=said):
        read_setup(parse_flags([*TINY_FLAGS, *flags]), Machine(vocabulary=WORDS))


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (Machine(backend="fused_cpu"), "--backend fused_cpu does not support fp32 on cuda"),
        (Machine(vocabulary=3), "--vocab-size must be"),
    ],
)
def test_a_machine_that_makes_no_sense_is_refused(machine: Machine, said: str) -> None:
    with pytest.raises(LSGError, match=said):
        read_setup(parse_flags([*TINY_FLAGS, "--batch-size", "1"]), machine)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    """fairseq-train's flags as they are, in words and as JSON; one sentence where they make no sense."""
    flags = ["data", *TINY_FLAGS, "--user-dir", "lsg_fairseq", "--max-tokens", "1024", "--fp16", "--lr", "1e-3"]
    assert main(["--gpu-memory", "80", "--json", *flags]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["fits"] is True
    assert said["peak_bytes"] == sum(said["peak_parts"].values())
    assert main(["--gpu-memory", "2.01", *flags]) == 0
    text = capsys.readouterr().out
    assert f"{said['parameters']:,} parameters" in text
    assert "2 are reserved" in text
    assert main(["--gpu-memory", "1", *flags]) == 1
    assert capsys.readouterr().err.count("\n") == 1
