"""Which attention backend serves what, and what it says when it cannot."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, run
from torch.nn.attention.flex_attention import create_block_mask

from benchmarks import gpu_training
from lsg_fairseq.modules import backend_probe, block_attention, flex_block_attention, fused_cpu_attention
from lsg_fairseq.modules.block_attention import Sequences, Tokens, choose_backend
from lsg_fairseq.modules.flex_block_attention import Lengths
from lsg_fairseq.modules.fused_cpu_attention import block_layout
from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.modules.registry import ENCODER_ATTENTIONS
from lsg_fairseq.modules.source_attention import SourceAttention
from recipes.tiny_models import build_model, random_tokens

CHECK = (sys.executable, "-m", "benchmarks.gpu_check")
CONFIG = LSGConfig(block_size=8, sparse_block_size=8, sparsity_factor=2, sparsity_type="stride")


def make_tokens(dtype: torch.dtype = torch.float32) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    return Tokens(*(torch.randn(2, 2, 1 + 48, 16, generator=generator).to(dtype) for _ in range(3)), None)


def make_sequences(dtype: torch.dtype = torch.float32) -> Sequences:
    tokens = make_tokens(dtype)
    parts = {"global": tokens.rows(0, 1), "local": tokens.rows(1)}
    keys, values = ({name: part[i] for name, part in parts.items()} for i in (1, 2))
    return Sequences(parts["local"].query, keys, values, {})


def replace_backend(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    monkeypatch.setitem(block_attention.BACKENDS, name, block_attention.BACKENDS[name]._replace(**changes))


def attend(tokens: Tokens, dropout_p: float = 0.0) -> torch.Tensor:
    return lsg_attention(tokens.query, tokens.key, tokens.value, CONFIG, dropout_p=dropout_p)


def test_this_torch_has_the_fused_ops() -> None:
    """A torch whose private ops differ is served by the reference; the pinned one must not be."""
    assert fused_cpu_attention.is_available()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_the_mode_of_the_first_use_does_not_decide(mode: Callable[[], AbstractContextManager[None]]) -> None:
    fused_cpu_attention.is_available.cache_clear()
    with mode():
        assert fused_cpu_attention.is_available()


@pytest.mark.parametrize(
    ("dtype", "dropout_p", "backend"),
    [
        (torch.float32, 0.0, "fused_cpu"),
        (torch.float64, 0.0, "fused_cpu"),
        (torch.bfloat16, 0.0, "fused_cpu"),
        (torch.float16, 0.0, "chunked"),
        (torch.float32, 0.1, "chunked"),
    ],
)
def test_auto_takes_the_fastest_that_applies(dtype: torch.dtype, dropout_p: float, backend: str) -> None:
    assert choose_backend(make_sequences(dtype), CONFIG, dropout_p) == backend


def test_the_setting_forces_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "reference")
    replace_backend(monkeypatch, "fused_cpu", attend=lambda *args: 1 / 0)
    attend(make_tokens())
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "fused_cpu")
    with pytest.raises(ZeroDivisionError):
        attend(make_tokens())
    with pytest.raises(LSGError, match=r"LSG_ATTENTION_BACKEND=fused_cpu cannot serve torch.float16 on cpu"):
        attend(make_tokens(torch.float16))
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "triton")
    with pytest.raises(LSGError, match=r"LSG_ATTENTION_BACKEND=triton cannot serve"):
        attend(make_tokens())
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "flash")
    with pytest.raises(LSGError, match="must be auto, reference, fused_cpu, flex, triton or chunked, not 'flash'"):
        attend(make_tokens())


def test_a_torch_without_the_ops_is_served_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = attend(make_tokens())
    fused_cpu_attention.is_available.cache_clear()
    monkeypatch.setattr(fused_cpu_attention, "_ATTEND", lambda *args, **kwargs: (args[0] * 0, args[0].sum(-1)))
    try:
        assert choose_backend(make_sequences(), CONFIG, 0.0) == "chunked"
        torch.testing.assert_close(attend(make_tokens()), expected)
    finally:
        fused_cpu_attention.is_available.cache_clear()


@pytest.mark.parametrize("forced", ["fused_cpu", "flex", "chunked"])
def test_a_forced_backend_without_dropout_leaves_it_to_chunks(monkeypatch: pytest.MonkeyPatch, forced: str) -> None:
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", forced)
    assert choose_backend(make_sequences(), CONFIG, 0.1) == "chunked"


@pytest.mark.parametrize("num_blocks", [3, 4, 5, 9])
@pytest.mark.parametrize(("sparse_block", "factor"), [(8, 2), (16, 2), (4, 4), (24, 8), (3, 4), (8, 1)])
def test_pieces_are_the_windows_of_the_definition(num_blocks: int, sparse_block: int, factor: int) -> None:
    """Every block sees the keys that section 3 of the paper's definition names, each exactly once."""
    config = LSGConfig(
        block_size=8,
        sparse_block_size=sparse_block,
        sparsity_factor=factor,
        sparsity_type="stride",
        num_global_tokens=2,
    )
    step, num_sparse = config.sparse_step, num_blocks * config.sparse_step
    seen: dict[tuple[int, str], list[int]] = {}
    for piece in block_layout(num_blocks, num_sparse, config).pieces:
        for i in range(piece.count):
            start = piece.start + i * piece.step
            seen.setdefault((piece.first + i, piece.sequence), []).extend(range(start, start + piece.size))
    for block in range(num_blocks):
        local = range(max(0, (block - 1) * 8), min(num_blocks, block + 2) * 8)
        left = range(max(0, (block - 1) * step - sparse_block), max(0, (block - 1) * step))
        right = range(min(num_sparse, (block + 2) * step), min(num_sparse, (block + 2) * step + sparse_block))
        assert sorted(seen[block, "local"]) == list(local)
        assert sorted(seen.get((block, "sparse"), [])) == [*left, *right]
        assert seen[block, "global"] == [0, 1]


@pytest.mark.parametrize("sparsity_type", ["none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride"])
@pytest.mark.parametrize("masked", [False, True])
def test_flex_attention_equals_the_reference(sparsity_type: str, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager and forward alone, which is what a CPU has; on CUDA the same functions are compiled."""
    config = replace(CONFIG, sparsity_type=sparsity_type)
    mask = torch.zeros(2, 49, dtype=torch.bool)
    mask[1, 20:] = True
    outputs = []
    for backend in ("flex", "reference"):
        monkeypatch.setenv("LSG_ATTENTION_BACKEND", backend)
        generator = torch.Generator().manual_seed(0)
        inputs = make_tokens()[:3]
        outputs.append(lsg_attention(*inputs, config, mask if masked else None, generator=generator))
    rows = slice(0, 20) if masked else slice(None)
    torch.testing.assert_close(outputs[0][:, :, rows], outputs[1][:, :, rows], atol=2e-5, rtol=1e-4)


def test_flex_structure_is_made_once() -> None:
    flex_block_attention.structure.cache_clear()
    made = [flex_block_attention.structure(48, 24, CONFIG, "cpu") for _ in range(2)]
    assert made[0] is made[1]


@pytest.mark.parametrize("globals_", [3, 130])
@pytest.mark.parametrize(
    ("num_tokens", "block", "factor"), [(384, 128, 2), (480, 32, 4), (1280, 256, 2), (200, 8, 8), (576, 96, 2)]
)
def test_flex_structure_is_the_whole_mask_in_tiles(num_tokens: int, block: int, factor: int, globals_: int) -> None:
    config = LSGConfig(block_size=block, sparse_block_size=block, sparsity_factor=factor, num_global_tokens=globals_)
    num_sparse = num_tokens // factor
    lengths = Lengths(num_tokens, num_sparse, globals_)
    made = flex_block_attention.structure(num_tokens, num_sparse, config, "cpu")
    visible = flex_block_attention.visible(lengths, config)
    expected = create_block_mask(visible, None, None, -(-num_tokens // 128) * 128, lengths.keys, device="cpu")
    assert made.shape == expected.shape
    assert torch.equal(made.to_dense(), expected.to_dense())
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(made, name), getattr(expected, name)), name


def test_flex_computes_few_tiles_more_than_are_needed() -> None:
    """Globals in front took 1,100 columns a row of tiles: they shift every window off the tiles."""
    config = LSGConfig()
    some, _ = flex_block_attention.tiles(Lengths(4096, 2048, 1), config)
    assert some.sum() * 128 / len(some) <= 856


def test_a_longer_source_takes_no_more_operations_to_structure() -> None:
    counts = []
    for num_tokens in (2048, 16384):
        with torch.profiler.profile() as profile:
            flex_block_attention.tiles(Lengths(num_tokens, num_tokens // 2, 1), LSGConfig())
        counts.append(sum(event.count for event in profile.key_averages()))
    assert counts[0] == counts[1]


def test_a_structure_made_in_inference_mode_serves_training() -> None:
    flex_block_attention.structure.cache_clear()
    with torch.inference_mode():
        made = flex_block_attention.structure(48, 24, CONFIG, "cpu")
    assert not made.kv_num_blocks.is_inference()


def simulated_batches() -> Iterator[tuple[int, int, bool, bool]]:
    """Batch size, tokens, padded, trains: two epochs of mixed batches of up to 4,096 tokens with validation."""
    choose = random.Random(0)
    for _ in range(2):
        for _ in range(15):
            batch = choose.choice([1, 1, 1, 2, 4, 8])
            yield batch, 128 * choose.randint(3, max(3, 32 // batch)), batch > 1 or choose.random() < 0.9, True
        for batch, tokens in ((1, 4096), (1, 3968), (4, 1024), (8, 512), (1, 2048), (2, 2048)):
            yield batch, tokens, tokens != 2048, False


def test_a_training_compiles_few_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kinds that are probed, each with gradients and without, of which dynamo makes a graph each."""
    kinds = set()

    def note(kind: backend_probe.Kind, attend: object) -> bool:
        kinds.add((kind, torch.is_grad_enabled()))
        return False

    monkeypatch.setattr(backend_probe, "passes", note)
    monkeypatch.setattr(flex_block_attention, "fits", lambda query, config: True)
    replace_backend(monkeypatch, "flex", fits=lambda query, config: True)
    replace_backend(monkeypatch, "fused_cpu", fits=lambda query, config: False)
    for batch, num_tokens, padded, trains in simulated_batches():
        query = torch.empty(batch, 2, num_tokens, 16, device="meta")
        parts = {"global": query[:, :, :1], "local": query}
        masks = {"local": query.new_empty(batch, 1, num_tokens, dtype=torch.bool)} if padded else {}
        # Checkpointing computes a layer without gradients first.
        for recorded in {False, trains}:
            with torch.set_grad_enabled(recorded):
                choose_backend(Sequences(query, parts, parts, masks), CONFIG, 0.0)
    assert len(kinds) <= 12


def test_flex_attention_compiles_once_for_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What dynamo makes of it on every device: a compilation for each length of document would pass its limit.

    Lengths that fill their tiles and others are two kinds, since numbers that are equal become one symbol.
    """
    torch._dynamo.reset()
    kernel = flex_block_attention.compiled_kernel("eager")
    monkeypatch.setattr(flex_block_attention, "_kernel", lambda device: kernel)
    first = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for num_tokens, graphs in ((384, 1), (512, 1), (1024, 1), (648, 2), (744, 2)):
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randn(2, 2, 1 + num_tokens, 16, generator=generator) for _ in range(3)]
        outputs = []
        for backend in ("flex", "reference"):
            monkeypatch.setenv("LSG_ATTENTION_BACKEND", backend)
            outputs.append(lsg_attention(*inputs, CONFIG))
        torch.testing.assert_close(*outputs, atol=2e-5, rtol=1e-4)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == first + graphs


def test_compilation_has_its_limit_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo's settings are a thread's own, and autograd has threads that compute checkpointed layers again."""
    seen = []
    monkeypatch.setattr(
        flex_block_attention.torch,
        "compile",
        lambda *args, **kwargs: lambda *args, **kwargs: seen.append(torch._dynamo.config.recompile_limit),
    )
    kernel = flex_block_attention.compiled_kernel()
    thread = threading.Thread(target=kernel, args=(None,) * 5)
    thread.start()
    thread.join()
    assert seen == [flex_block_attention.MOST_GRAPHS]


def test_gpu_check_runs_without_a_gpu(tmp_path: Path) -> None:
    """What a machine with a GPU will be asked to run does run, and its checks can fail."""
    quick = [*CHECK, "--device", "cpu", "--quick", "--out", tmp_path / "check.json"]
    printed = run(*quick, "--parts", "attention", "dropout", "auto", "steps", "speed", cwd=REPOSITORY)
    assert " 0 failed" in printed
    result = json.loads((tmp_path / "check.json").read_text())
    assert len(result["checks"]) > 100
    assert all(check["error"] <= check["allowed"] for check in result["checks"])
    assert len(result["speed"]) == 12
    if not torch.cuda.is_available():
        assert "sees no GPU" in run(*CHECK, check=False, cwd=REPOSITORY)


@pytest.mark.slow
def test_gpu_check_trains_without_a_gpu(tmp_path: Path) -> None:
    quick = [*CHECK, "--device", "cpu", "--quick", "--out", tmp_path / "check.json"]
    assert " 0 failed" in run(*quick, "--parts", "training", cwd=REPOSITORY)
    names = [check["name"] for check in json.loads((tmp_path / "check.json").read_text())["checks"]]
    for name in ("lsg-preprocess, once", "fairseq-train, fp16, epoch 2", "fairseq-generate, fp16"):
        assert {f"command: {name}", f"backends given up: {name}"} <= set(names)


@pytest.mark.parametrize(
    ("log", "failed"),
    [
        ("UserWarning: flex attention is given up for float16 heads of 64 on cuda:0: it fails (x)", 1),
        ("UserWarning: triton attention failed once (x); this call is served without", 1),
        ("nothing of the kind", 0),
    ],
)
def test_gpu_check_sees_what_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, failed: int
) -> None:
    done = subprocess.CompletedProcess([], 0, "", log)
    monkeypatch.setattr(gpu_training.subprocess, "run", lambda *args, **kwargs: done)
    checks = {check.name: check for check in gpu_training._command(tmp_path, "fairseq-generate", [], "fp16")}
    assert checks["backends given up: fairseq-generate, fp16"].error == failed


def test_exported_encoder_equals_the_original() -> None:
    """torch.export of the encoder at a fixed length."""
    encoder, tokens = build_model(lsg_num_global_tokens=2).encoder, random_tokens(40, 33)

    class Encode(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.encoder(tokens)["encoder_out"][0]

    exported = torch.export.export(Encode().eval(), (tokens,)).module()
    with torch.no_grad():
        for source in (tokens, random_tokens(40, 12, seed=5)):
            rows = encoder(source)["encoder_padding_mask"][0]
            difference = (exported(source) - encoder(source)["encoder_out"][0]).transpose(0, 1)[~rows]
            assert difference.abs().max() < 1e-5


def test_compiled_attention_equals_eager() -> None:
    tokens = make_tokens()
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens), attend(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["lsg", "full"])
@pytest.mark.parametrize(
    ("dtype", "dropout", "trains", "expected"),
    [
        (torch.bfloat16, 0.0, True, torch.float32),
        (torch.float16, 0.0, True, torch.float32),
        (torch.bfloat16, 0.1, True, torch.bfloat16),
        (torch.bfloat16, 0.0, False, torch.bfloat16),
        (torch.float64, 0.0, True, torch.float64),
    ],
)
def test_training_in_half_precision_widens_attention_alone(
    monkeypatch: pytest.MonkeyPatch,
    attention: str,
    dtype: torch.dtype,
    dropout: float,
    trains: bool,
    expected: torch.dtype,
) -> None:
    """Slow kernels are avoided, and outputs and gradients keep the model's dtype."""
    config = LSGConfig(block_size=8, sparse_block_size=8, attention=attention)
    module = ENCODER_ATTENTIONS[attention](16, 2, config, dropout).to(dtype).train(trains)
    seen, attend = [], module.attend
    monkeypatch.setattr(module, "attend", lambda *heads: seen.append(heads[0].dtype) or attend(*heads))
    x = torch.randn(33, 2, 16, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_(trains)
    with torch.no_grad():  # as activation checkpointing computes a layer the first time
        first, _ = module(x, x, x)
    output, _ = module(x, x, x)
    assert seen == [expected] * 2
    assert output.dtype == dtype
    if trains:
        output.sum().backward()
        assert x.grad.dtype == module.k_proj.weight.grad.dtype == dtype
        assert x.grad.isfinite().all()
    if not dropout:
        # Without gradients another kernel may serve: the same to rounding.
        tolerance = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(first, output.detach(), atol=tolerance, rtol=tolerance)


def test_autocast_decides_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ENCODER_ATTENTIONS["full"](16, 2, LSGConfig(attention="full")).train()
    seen, attend = [], module.attend
    monkeypatch.setattr(module, "attend", lambda *heads: seen.append(heads[0].dtype) or attend(*heads))
    x = torch.randn(33, 2, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(x, x, x)
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize(("trains", "expected"), [(True, torch.float32), (False, torch.bfloat16)])
def test_attention_over_the_source_is_widened_too(
    monkeypatch: pytest.MonkeyPatch, trains: bool, expected: torch.dtype
) -> None:
    module, seen = SourceAttention(16, 16, 2).bfloat16().train(trains), []
    upstream = torch.nn.functional.scaled_dot_product_attention
    kernel = "torch.nn.functional.scaled_dot_product_attention"
    monkeypatch.setattr(kernel, lambda *heads: seen.append({x.dtype for x in heads[:3]}) or upstream(*heads))
    output, _ = module(torch.randn(3, 2, 16).bfloat16(), *[torch.randn(9, 2, 16).bfloat16()] * 2)
    assert seen == [{expected}]
    assert output.dtype == torch.bfloat16
