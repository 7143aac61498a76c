"""Linear layers with packed weights: the same products, for as long as they are asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.modules.packed_linear import PackableLinear, packed_weights
from recipes.tiny_models import build_model, random_tokens


def make_layer(dtype: torch.dtype = torch.float32, bias: bool = True) -> PackableLinear:
    torch.manual_seed(0)
    return PackableLinear(40, 24, bias=bias).to(dtype)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(40,), (1, 40), (3, 5, 40), (0, 40)])
def test_products_are_those_of_torch(bias: bool, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    layer = make_layer(dtype, bias)
    x = torch.randn(*shape, dtype=dtype)
    expected = nn.functional.linear(x, layer.weight, layer.bias)
    with torch.no_grad(), packed_weights(layer):
        tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(layer(x), expected, atol=tolerance, rtol=tolerance)


def test_weights_are_packed_where_that_is_faster() -> None:
    layer = make_layer()
    with packed_weights(layer):
        assert layer._product is not None


def test_int8_is_near() -> None:
    layer, x = make_layer(), torch.randn(50, 40)
    with torch.no_grad(), packed_weights(layer, as_int8=True):
        error = (layer(x) - nn.functional.linear(x, layer.weight, layer.bias)).abs().max()
    assert 0 < error < 0.05


def test_a_torch_without_int8_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def quantize(*args: object) -> None:
        raise RuntimeError("no engine\nand a stack")

    monkeypatch.setattr(torch, "quantize_per_channel", quantize)
    layer = make_layer()
    message = r"int8 weights do not work here \(no engine\): choose another dtype"
    with pytest.raises(LSGError, match=message), packed_weights(layer, as_int8=True):
        pass


def test_changed_weights_are_packed_anew_and_gradients_see_the_weights() -> None:
    layer, x = make_layer(), torch.randn(2, 40)
    with packed_weights(layer):
        first = layer(x)
        assert first.requires_grad
    layer.weight.data.mul_(2)
    with torch.no_grad(), packed_weights(layer):
        expected = nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_inner_context_leaves_packing_to_the_outer_one() -> None:
    layer = make_layer()
    with packed_weights(layer):
        product = layer._product
        with packed_weights(layer):
            assert layer._product is product
        assert layer._product is product
    assert layer._product is None


def test_an_exception_leaves_nothing_packed() -> None:
    layer = make_layer()
    with pytest.raises(ZeroDivisionError), packed_weights(layer):
        _ = 1 / 0
    assert layer._product is None


@pytest.mark.parametrize("arch", ["lsg_bart_small", "lsg_pegasus_small"])
def test_every_product_of_a_model_is_packed_and_its_state_is_not(arch: str) -> None:
    model = build_model(arch)
    names, tokens = set(model.state_dict()), random_tokens(40, 20)
    assert all(isinstance(m, PackableLinear) for m in model.modules() if isinstance(m, nn.Linear))
    assert model.decoder.output_projection.weight is model.decoder.embed_tokens.weight
    with torch.no_grad():
        expected = model(tokens, None, tokens[:, :5])[0]
        with packed_weights(model):
            assert set(model.state_dict()) == names
            torch.testing.assert_close(model(tokens, None, tokens[:, :5])[0], expected, atol=1e-5, rtol=1e-5)
