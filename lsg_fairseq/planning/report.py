"""A plan in words, a table and JSON."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any

from lsg_fairseq.planning.memory import Plan, most_rows, plan
from lsg_fairseq.planning.setup import Batch, Machine, Setup, read_setup, short_documents

GIB = 2**30


@dataclass(frozen=True)
class Room:
    """A device's memory and what is set aside for its driver, libraries and fragmentation, GiB."""

    total: float
    reserve: float

    @property
    def usable(self) -> int:
        """Bytes for the training."""
        return int((self.total - self.reserve) * GIB)


@dataclass(frozen=True)
class Report:
    """A training's plan; `short`: that of its batches of short documents, where these take more.

    fitting: examples of full length in the largest batch that fits into `room`, where there is one.
    """

    arch: str
    setup: Setup
    plan: Plan
    short: tuple[Batch, Plan] | None
    room: Room | None
    fitting: int | None

    @property
    def peak(self) -> int:
        """Bytes of the worst batch at its worst moment."""
        return max(self.plan.peak, self.short[1].peak if self.short else 0)

    @property
    def fits(self) -> bool | None:
        """Whether the worst batch fits into `room`."""
        return None if self.room is None else self.peak <= self.room.usable

    @property
    def largest_max_tokens(self) -> int | None:
        """--max-tokens of the largest batch of full length that fits."""
        if self.fitting is None:
            return None
        return self.fitting * max(self.setup.batch.source, self.setup.batch.target)


def make_report(args: Namespace, machine: Machine, room: Room | None) -> Report:
    """Plan the batch of longest documents, that of short ones, and the largest batch that fits."""
    setup = read_setup(args, machine)
    planned, short = plan(setup), short_documents(args)
    if short is not None:
        other = plan(replace(setup, batch=short))
        short = (short, other) if other.peak > planned.peak else None
    fitting = None if room is None else most_rows(setup, room.usable)
    return Report(args.arch, setup, planned, short, room, fitting)


def as_json(report: Report) -> dict[str, Any]:
    """Everything in bytes."""
    setup = report.setup
    return {
        "arch": report.arch,
        "parameters": setup.model.parameters,
        "vocabulary": setup.model.vocabulary,
        "dtype": setup.dtype,
        "backend": setup.backend if setup.attends_by_blocks else "plain attention",
        "checkpoint_activations": setup.model.checkpoints,
        "batch": setup.batch._asdict(),
        "peak_bytes": report.plan.peak,
        "peak_moment": report.plan.moment,
        "peak_parts": report.plan.parts,
        "kept_for_backward": report.plan.kept,
        "short_documents": report.short and {"batch": report.short[0]._asdict(), "peak_bytes": report.short[1].peak},
        "fits": report.fits,
        "largest_max_tokens": report.largest_max_tokens,
    }


def to_text(report: Report) -> str:
    """A few lines and a table."""
    setup, planned = report.setup, report.plan
    lines = [*_headline(report), "", f"{'held at the worst moment':<28}{'GiB':>8}"]
    lines += [f"{name:<28}{size / GIB:>8.2f}" for name, size in planned.parts.items()]
    lines += [f"{'together, ' + planned.moment:<28}{planned.peak / GIB:>8.2f}", ""]
    kept = ", ".join(f"{name} {size / GIB:.2f}" for name, size in planned.kept.items())
    lines.append(f"kept for the backward, GiB: {kept}; together {sum(planned.kept.values()) / GIB:.2f}")
    if report.short:
        batch, other = report.short
        lines.append(
            f"a batch of {batch.rows} short documents, {batch.source:,} tokens each and as many in the summary, takes "
            f"more: {other.peak / GIB:.2f}; --batch-size {setup.batch.rows} rules it out"
        )
    return "\n".join([*lines, *_room_lines(report), *_caveat(report)])


def _headline(report: Report) -> list[str]:
    setup, batch = report.setup, report.setup.batch
    backend = f"block attention: {setup.backend}" if setup.attends_by_blocks else "plain attention"
    checkpoints = "activation checkpointing" if setup.model.checkpoints else "no activation checkpointing"
    efficient = ", memory-efficient" if setup.is_memory_efficient else ""
    ranks = f"{setup.world_size} processes, {setup.ddp_backend}" if setup.world_size > 1 else "1 process"
    return [
        f"{report.arch}: {setup.model.parameters:,} parameters, {setup.model.vocabulary:,} of them words of width "
        f"{setup.model.encoder.width:,}; {setup.dtype}{efficient}, {setup.optimizer}, {ranks}",
        f"a batch of {batch.rows} x {batch.source:,} tokens and {batch.target:,} in the summary; {backend}; "
        f"{checkpoints}",
    ]


def _room_lines(report: Report) -> list[str]:
    if report.room is None:
        return []
    room, verdict = report.room, "fits into" if report.fits else "does not fit into"
    first = f"{report.peak / GIB:.2f} GiB {verdict} {room.total:g} GiB, of which {room.reserve:g} are set aside"
    if not report.fitting:
        return [first, "not even one document of this length fits: see --checkpoint-activations, or fewer positions"]
    largest = f"--max-tokens {report.largest_max_tokens} --batch-size {report.fitting}"
    return [first, f"the largest batch of full length that fits: {largest}"]


def _caveat(report: Report) -> list[str]:
    if not report.setup.is_cuda:
        return []
    return ["worked out, not measured: the formula was checked on CPUs alone (benchmarks/plan.py)"]
