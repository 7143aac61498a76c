"""Linear layers that keep a packed copy of their weights during a generation: in the layout that oneDNN's kernels read.

A generation step multiplies a handful of rows by every weight of the decoder, so it is bound by reading the weights.
torch's default kernel reaches at most half of the memory bandwidth there; oneDNN reaches all of it once the weights are
reordered ("packed"), and is a tenth faster on the thousands of rows of an encoder, too. int8 weights are a quarter of
the bytes, at the cost of rounding. The packed copy exists beside the weights until the outermost `packed_weights` ends,
so nothing that trains, saves or moves a model sees it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsg_fairseq.modules.lsg_config import LSGError

# What multiplies (..., in) by packed weights: (..., out).
Product = Callable[[Tensor], Tensor]


class PackableLinear(nn.Linear):
    """torch's linear layer, which uses packed weights while it has them and no gradient is recorded."""

    _product: Product | None = None
    _activated_product: Callable[[Tensor, str], Tensor] | None = None

    @classmethod
    def like(cls, linear: nn.Linear) -> PackableLinear:
        """The same layer, sharing its parameters."""
        made = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self._product(x) if self._is_packed_for(x) else super().forward(x)

    def activated(self, x: Tensor, activation: str, function: Callable[[Tensor], Tensor]) -> Tensor:
        """function(self(x)); one fused pass where oneDNN knows the function, as `activation`."""
        if self._activated_product is None or not self._is_packed_for(x):
            return function(self(x))
        return self._activated_product(x, activation)

    def _is_packed_for(self, x: Tensor) -> bool:
        return self._product is not None and not torch.is_grad_enabled() and x.dtype == self.weight.dtype

    def pack(self, as_int8: bool = False) -> None:
        """Pack the current weights where this torch and processor support it.

        Raises:
            LSGError: this torch or processor has no products of int8 weights.
        """
        weight, bias = self.weight.detach(), None if self.bias is None else self.bias.detach()
        if as_int8:
            try:
                self._product = _int8_product(weight, bias)
            except (AttributeError, NotImplementedError, RuntimeError) as error:
                reason = str(error).partition("\n")[0]
                raise LSGError(f"int8 weights do not work here ({reason}): choose another dtype") from error
        elif weight.device.type == "cpu" and _is_available(weight.dtype):
            self._activated_product = _packed_product(weight, bias)
            self._product = functools.partial(self._activated_product, activation="none")

    def unpack(self) -> None:
        """Drop the packed copy."""
        self._product = self._activated_product = None


@contextmanager
def packed_weights(module: nn.Module, as_int8: bool = False) -> Iterator[None]:
    """Pack every PackableLinear in `module`; a nested context packs nothing again.

    Args:
        as_int8: as 8-bit integers with a scale for each output, and inputs rounded to 8 bits with a scale for each
            call; products of float32 models on CPUs only.
    """
    layers = [m for m in module.modules() if isinstance(m, PackableLinear) and m._product is None]
    try:
        with torch.no_grad():
            for layer in layers:
                layer.pack(as_int8)
        yield
    finally:
        for layer in layers:
            layer.unpack()


def _packed_product(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor, str], Tensor]:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x, activation: multiply(x, packed, bias, activation, [], "none")  # the algorithm: exact, by erf


def _int8_product(weight: Tensor, bias: Tensor | None) -> Product:
    scales = (weight.abs().amax(1) / 127).clamp_min(torch.finfo(weight.dtype).tiny)
    with warnings.catch_warnings():
        # torch says that it will drop these tensors some day; `pack` says so when it has.
        warnings.filterwarnings("ignore", message=".*quantize_per_channel", category=UserWarning)
        rounded = torch.quantize_per_channel(weight, scales, torch.zeros_like(scales, dtype=torch.long), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, bias)
    # Without the instructions that add 8-bit products in 32 bits, they need a bit of headroom.
    narrow = not torch.cpu._is_vnni_supported()
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed, narrow)


@functools.lru_cache(maxsize=4)
def _is_available(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN's ops (they are private) and they multiply as relied on here: a tiny product."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((3, 8), (5, 8), (5,)))
    try:
        product = _packed_product(weight, bias)(x, "none")
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return torch.allclose(product.float(), F.linear(x, weight, bias).float(), atol=1e-5 if dtype.itemsize == 4 else 0.1)
