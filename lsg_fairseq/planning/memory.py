"""A training's memory over time: what is held throughout, and the moment of the peak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.planning.activations import Layer, layers_of
from lsg_fairseq.planning.setup import Setup

PARAMETERS, GRADIENTS, COPIES, STATE = "parameters", "gradients", "float32 copies", "optimizer state"
BUCKETS, GATHERED, WORK = "communication buffers", "gathered parameters", "temporary"
# The elements of legacy_ddp's buffer (fairseq's LegacyDistributedDataParallel).
LEGACY_BUFFER = 2**28


@dataclass(frozen=True)
class Plan:
    """The memory of a training, in bytes.

    Args:
        parts: what is held at the moment of the peak, by name; they add up to `peak`.
        moment: the name of that moment.
        kept: what the forward keeps for the backward, by group; with activation checkpointing, only inputs of layers.
    """

    parts: dict[str, int]
    moment: str
    kept: dict[str, int]

    @property
    def peak(self) -> int:
        """The most bytes that are held at any moment."""
        return sum(self.parts.values())


def plan(setup: Setup) -> Plan:
    """Walk through one update and find the moment of the peak."""
    layers = layers_of(setup)
    kept: Counter[str] = Counter()
    for layer in layers:
        kept.update(_held(setup, layer))
    moments = [*_backward(setup, layers, kept), _optimizer_step(setup)]
    moment, parts = max(moments, key=lambda item: sum(item[1].values()))
    return Plan({name: size for name, size in parts.items() if size}, moment, dict(kept))


def standing(setup: Setup) -> dict[str, int]:
    """Bytes that do not depend on the batch: parameters, copies, optimizer state, buffers; of one rank if sharded."""
    numbers, size = setup.model.parameters, setup.itemsize
    parts = {PARAMETERS: numbers * size}
    if size == 2 and not setup.is_memory_efficient:
        # FP16Optimizer's fp32_params and their gradients, which are never freed.
        parts[COPIES] = 8 * numbers
    parts[STATE] = optimizer_state(setup)
    if setup.zero_sharding == "os":
        parts[STATE] //= setup.world_size
    if setup.world_size > 1 and setup.ddp_backend != "fully_sharded":
        is_legacy = setup.ddp_backend in ("legacy_ddp", "no_c10d")
        parts[BUCKETS] = size * (min(numbers, LEGACY_BUFFER) if is_legacy else numbers)
    if setup.ddp_backend == "fully_sharded":
        parts = {name: part // setup.world_size for name, part in parts.items()}
        parts[GATHERED] = _gathered(setup)
    return parts


def optimizer_state(setup: Setup) -> int:
    """Bytes of Adam's two moments, or of Adafactor's rows and columns (fairseq/optim/adafactor.py), in float32."""
    if setup.optimizer == "adam":
        return 8 * setup.model.parameters
    second = sum(
        prod(shape[:-1]) + prod((*shape[:-2], shape[-1])) if len(shape) > 1 else prod(shape)
        for shape in setup.model.shapes
    )
    return 4 * (second + (setup.model.parameters if setup.has_first_moment else 0))


def _gathered(setup: Setup) -> int:
    """Bytes of full parameters that FSDP holds: those outside layers, the current layer and the prefetched one."""
    stacks = (setup.model.encoder, setup.model.decoder)
    in_layers = sum(stack.layers * stack.layer_parameters for stack in stacks)
    largest = max(stack.layer_parameters for stack in stacks)
    return (setup.model.parameters - in_layers + 2 * largest) * setup.itemsize


def _held(setup: Setup, layer: Layer) -> dict[str, int]:
    """Bytes that a layer's forward keeps, by group."""
    if setup.model.checkpoints and layer.inputs:
        return {layer.steps[0].group: layer.inputs}
    return _steps_kept(layer)


def _backward(setup: Setup, layers: list[Layer], kept: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the moments of a backward, one per step, each with its name and the bytes held, by part."""
    parts, share = standing(setup), setup.world_size if setup.ddp_backend == "fully_sharded" else 1
    total = setup.model.parameters * setup.itemsize // share
    held, made = Counter(kept), 0
    # The shared table is used three times: the gradient of one use is held beside the accumulated one.
    table = setup.model.vocabulary * setup.model.encoder.width * setup.itemsize
    waiting = table if setup.accumulates else 0
    for layer in reversed(layers):
        recomputed = setup.model.checkpoints and layer.inputs
        extra = _steps_kept(layer) if recomputed else Counter()
        for step in reversed(layer.steps):
            gradients = total if setup.accumulates else min(made // share, total)
            work = step.work + waiting + (layer.extra_work if recomputed else 0)
            # An update, not a sum: a part that has become 0 must stay.
            activations = Counter(held)
            activations.update(extra)
            yield f"backward, {step.group}", {**parts, GRADIENTS: gradients, **activations, WORK: work}
            (extra if recomputed else held)[step.group] -= step.kept
            made += step.parameters * setup.itemsize
        if recomputed:
            held[layer.steps[0].group] -= layer.inputs


def _steps_kept(layer: Layer) -> Counter[str]:
    kept: Counter[str] = Counter()
    for step in layer.steps:
        kept[step.group] += step.kept
    return kept


def _optimizer_step(setup: Setup) -> tuple[str, dict[str, int]]:
    """The moment of the optimizer's step: all gradients, no activations. It updates the parameters one by one."""
    share = setup.world_size if setup.ddp_backend == "fully_sharded" else 1
    largest = setup.model.parameters if setup.is_flat else setup.model.largest
    # Adam: the denominator, and in half precision the parameter and its gradient in float32. Adafactor: the update.
    arrays = 3 if setup.itemsize == 2 and setup.is_memory_efficient else 1
    arrays += setup.optimizer == "adafactor"
    gradients = setup.model.parameters * setup.itemsize // share
    return "update", {**standing(setup), GRADIENTS: gradients, WORK: 4 * arrays * largest // share}


def most_rows(setup: Setup, limit: int) -> int:
    """The most examples of the setup's lengths in a batch whose peak is at most `limit` bytes; 0 if not even one.

    Raises:
        LSGError: more than 2**20 examples fit.
    """
    if plan(setup.with_rows(1)).peak > limit:
        return 0
    few, many = 1, 2
    while plan(setup.with_rows(many)).peak <= limit:
        few, many = many, 2 * many
        if many > 2**20:
            raise LSGError(f"more than {2**20:,} examples would fit into a batch: check the sizes")
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if plan(setup.with_rows(middle)).peak <= limit else (few, middle)
    return few
