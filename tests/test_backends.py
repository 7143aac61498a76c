"""Which attention backend serves what, and what it says when it cannot."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, run
from torch.nn.attention.flex_attention import create_block_mask

from lsg_fairseq.modules import block_attention, flex_block_attention, fused_cpu_attention
from lsg_fairseq.modules.block_attention import Tokens, choose_backend
from lsg_fairseq.modules.fused_cpu_attention import block_layout
from lsg_fairseq.modules.lsg_attention import lsg_attention
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.modules.registry import ENCODER_ATTENTIONS
from lsg_fairseq.modules.source_attention import SourceAttention
from recipes.tiny_models import build_model, random_tokens

CHECK = REPOSITORY / "benchmarks" / "gpu_check.py"
CONFIG = LSGConfig(block_size=8, sparse_block_size=8, sparsity_factor=2, sparsity_type="stride")


def make_tokens(dtype: torch.dtype = torch.float32) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    return Tokens(*(torch.randn(2, 2, 1 + 48, 16, generator=generator).to(dtype) for _ in range(3)), None)


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
        (torch.float16, 0.0, "reference"),
        (torch.float32, 0.1, "reference"),
    ],
)
@pytest.mark.filterwarnings("ignore:attention dropout")
def test_auto_takes_the_fastest_that_applies(dtype: torch.dtype, dropout_p: float, backend: str) -> None:
    assert choose_backend(make_tokens(dtype), dropout_p) == backend


def test_the_setting_forces_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "reference")
    monkeypatch.setitem(block_attention.FUSED_BACKENDS, "fused_cpu", lambda *args: 1 / 0)
    attend(make_tokens())
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "fused_cpu")
    with pytest.raises(ZeroDivisionError):
        attend(make_tokens())
    with pytest.raises(LSGError, match=r"LSG_ATTENTION_BACKEND=fused_cpu cannot serve torch.float16 on cpu"):
        attend(make_tokens(torch.float16))
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "flash")
    with pytest.raises(LSGError, match="must be auto, reference, fused_cpu or flex, not 'flash'"):
        attend(make_tokens())


def test_a_torch_without_the_ops_is_served_by_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = attend(make_tokens())
    fused_cpu_attention.is_available.cache_clear()
    monkeypatch.setattr(fused_cpu_attention, "_ATTEND", lambda *args, **kwargs: (args[0] * 0, args[0].sum(-1)))
    try:
        assert choose_backend(make_tokens(), 0.0) == "reference"
        torch.testing.assert_close(attend(make_tokens()), expected)
    finally:
        fused_cpu_attention.is_available.cache_clear()


def test_dropout_says_what_it_costs() -> None:
    with pytest.warns(UserWarning, match="--attention-dropout 0 avoids that"):
        attend(make_tokens(), dropout_p=0.5)


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


@pytest.mark.parametrize(("num_tokens", "block", "factor"), [(384, 128, 2), (480, 32, 4), (1280, 256, 2), (200, 8, 8)])
def test_flex_structure_is_the_whole_mask_in_tiles(num_tokens: int, block: int, factor: int) -> None:
    config = LSGConfig(block_size=block, sparse_block_size=block, sparsity_factor=factor, num_global_tokens=3)
    num_sparse = num_tokens // factor
    made = flex_block_attention.structure(num_tokens, num_sparse, config, "cpu")
    num_keys = 3 + num_tokens + num_sparse
    visible = flex_block_attention.visible(num_tokens, config)
    expected = create_block_mask(visible, None, None, num_tokens, num_keys, device="cpu")
    assert made.shape == expected.shape
    assert torch.equal(made.to_dense(), expected.to_dense())
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(made, name), getattr(expected, name)), name


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles FlexAttention for a CPU with g++")
def test_flex_attention_compiles_once_for_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, where a compilation for each length of document would pass dynamo's limit; forward alone."""
    torch._dynamo.reset()
    kernel = torch.compile(flex_block_attention.flex_attention, fullgraph=True)
    monkeypatch.setattr(flex_block_attention, "_kernel", lambda device: kernel)
    counts = []
    for num_tokens in (256, 384, 512, 640):  # two tiles and more: torch compiles for one on its own
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randn(2, 2, 1 + num_tokens, 16, generator=generator) for _ in range(3)]
        outputs = []
        for backend in ("flex", "reference"):
            monkeypatch.setenv("LSG_ATTENTION_BACKEND", backend)
            outputs.append(lsg_attention(*inputs, CONFIG))
        torch.testing.assert_close(*outputs, atol=2e-5, rtol=1e-4)
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counts[-1] == counts[1]


def test_gpu_check_runs_without_a_gpu(tmp_path: Path) -> None:
    """What a machine with a GPU will be asked to run does run, and its checks can fail."""
    printed = run(sys.executable, CHECK, "--device", "cpu", "--quick", "--out", tmp_path / "check.json")
    assert " 0 failed" in printed
    result = json.loads((tmp_path / "check.json").read_text())
    assert len(result["checks"]) > 100
    assert all(check["error"] <= check["allowed"] for check in result["checks"])
    assert len(result["speed"]) == 12
    if not torch.cuda.is_available():
        assert "sees no GPU" in run(sys.executable, CHECK, check=False)


def test_flex_failure_falls_back_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("no kernel image")

    expected = attend(make_tokens())
    monkeypatch.setitem(block_attention.FUSED_BACKENDS, "flex", fail)
    monkeypatch.setattr(block_attention, "_fitting_backend", lambda tokens: "flex")
    monkeypatch.setattr(block_attention, "FAILED_BACKENDS", set())
    with pytest.warns(UserWarning, match=r"FlexAttention failed \(no kernel image\)"):
        torch.testing.assert_close(attend(make_tokens()), expected)
    assert {"flex"} == block_attention.FAILED_BACKENDS
    monkeypatch.setenv("LSG_ATTENTION_BACKEND", "flex")
    with pytest.raises(RuntimeError, match="no kernel image"):
        attend(make_tokens())


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
        assert torch.equal(first, output)


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
