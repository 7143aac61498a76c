"""Memory of a training over time: what stands from update to update, and the moment at which most is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.planning.activations import Layer, layers_of
from lsg_fairseq.planning.setup import Setup

PARAMETERS, GRADIENTS, COPIES, STATE = "parameters", "gradients", "float32 copies", "optimizer state"
BUCKETS, GATHERED, WORK = "gradients to send", "gathered parameters", "for the moment"
# Elements that legacy_ddp sends at a time (fairseq's LegacyDistributedDataParallel).
LEGACY_BUFFER = 2**28


@dataclass(frozen=True)
class Plan:
    """What a training takes, in bytes.

    parts: what is held at the moment at which most is; they add up to `peak`.
    moment: that moment.
    kept: what a forward leaves for its backward, by group; under activation checkpointing, its inputs alone.
    """

    parts: dict[str, int]
    moment: str
    kept: dict[str, int]

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return sum(self.parts.values())


def plan(setup: Setup) -> Plan:
    """Walk through an update and take the moment at which most is held."""
    layers = layers_of(setup)
    kept: Counter[str] = Counter()
    for layer in layers:
        kept.update(_held(setup, layer))
    moments = [*_backward(setup, layers, kept), _optimizer_step(setup)]
    moment, parts = max(moments, key=lambda item: sum(item[1].values()))
    return Plan({name: size for name, size in parts.items() if size}, moment, dict(kept))


def standing(setup: Setup) -> dict[str, int]:
    """What is there whatever the batch: parameters, copies, the optimizer's state; by rank where it is shared out."""
    numbers, size = setup.model.parameters, setup.itemsize
    parts = {PARAMETERS: numbers * size}
    if size == 2 and not setup.is_memory_efficient:
        # FP16Optimizer's fp32_params and their gradients, which it never lets go of.
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
    """Bytes of Adam's two means, or of Adafactor's rows and columns (fairseq/optim/adafactor.py), in float32."""
    if setup.optimizer == "adam":
        return 8 * setup.model.parameters
    second = sum(
        prod(shape[:-1]) + prod((*shape[:-2], shape[-1])) if len(shape) > 1 else prod(shape)
        for shape in setup.model.shapes
    )
    return 4 * (second + (setup.model.parameters if setup.has_first_moment else 0))


def _gathered(setup: Setup) -> int:
    """Whole parameters that FSDP holds: those outside of layers, the layer at work and the one fetched ahead."""
    stacks = (setup.model.encoder, setup.model.decoder)
    in_layers = sum(stack.layers * stack.layer_parameters for stack in stacks)
    largest = max(stack.layer_parameters for stack in stacks)
    return (setup.model.parameters - in_layers + 2 * largest) * setup.itemsize


def _held(setup: Setup, layer: Layer) -> dict[str, int]:
    """What a layer's forward leaves behind, by group."""
    if setup.model.checkpoints and layer.inputs:
        return {layer.steps[0].group: layer.inputs}
    held: Counter[str] = Counter()
    for step in layer.steps:
        held[step.group] += step.kept
    return held


def _backward(setup: Setup, layers: list[Layer], kept: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
    """The moments of a backward: one for each step, in its order."""
    parts, share = standing(setup), setup.world_size if setup.ddp_backend == "fully_sharded" else 1
    total = setup.model.parameters * setup.itemsize // share
    held, made = Counter(kept), 0
    # The shared table is used three times; what the first uses give waits beside what earlier batches left.
    table = setup.model.vocabulary * setup.model.encoder.width * setup.itemsize
    waiting = table if setup.accumulates else 0
    for layer in reversed(layers):
        recomputed = setup.model.checkpoints and layer.inputs
        extra = Counter(_steps_kept(layer)) if recomputed else Counter()
        for step in reversed(layer.steps):
            gradients = total if setup.accumulates else min(made // share, total)
            work = step.work + waiting + (layer.extra_work if recomputed else 0)
            yield f"backward, {step.group}", {**parts, GRADIENTS: gradients, **_sum(held, extra), WORK: work}
            (extra if recomputed else held)[step.group] -= step.kept
            made += step.parameters * setup.itemsize
        if recomputed:
            held[layer.steps[0].group] -= layer.inputs


def _steps_kept(layer: Layer) -> dict[str, int]:
    kept: Counter[str] = Counter()
    for step in layer.steps:
        kept[step.group] += step.kept
    return kept


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in (*one, *other)}


def _optimizer_step(setup: Setup) -> tuple[str, dict[str, int]]:
    """The update: gradients are whole, activations gone. The optimizer works through the parameters one by one."""
    share = setup.world_size if setup.ddp_backend == "fully_sharded" else 1
    largest = setup.model.parameters if setup.is_flat else setup.model.largest
    # Adam: the denominator; of half precision also the parameter and its gradient, in float32. Adafactor: the update.
    arrays = 3 if setup.itemsize == 2 and setup.is_memory_efficient else 1
    arrays += setup.optimizer == "adafactor"
    gradients = setup.model.parameters * setup.itemsize // share
    return "update", {**standing(setup), GRADIENTS: gradients, WORK: 4 * arrays * largest // share}


def most_rows(setup: Setup, limit: int) -> int:
    """The largest number of examples in a batch, of the setup's lengths, with a peak of at most `limit` bytes; or 0."""
    if plan(setup.with_rows(1)).peak > limit:
        return 0
    few, many = 1, 2
    while plan(setup.with_rows(many)).peak <= limit:
        few, many = many, 2 * many
        if many > 2**20:
            raise LSGError("any number of examples fits: the sizes make no sense")
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if plan(setup.with_rows(middle)).peak <= limit else (few, middle)
    return few
