"""The report of lsg-plan, as text and as JSON."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any

from lsg_fairseq.planning.memory import Plan, most_rows, plan
from lsg_fairseq.planning.setup import Batch, Machine, Setup, read_setup, short_documents

GIB = 2**30


@dataclass(frozen=True)
class Room:
    """A device's memory, and the part of it that driver, libraries and fragmentation take, in GiB."""

    total: float
    reserve: float

    @property
    def usable(self) -> int:
        """The bytes for the training."""
        return int((self.total - self.reserve) * GIB)


@dataclass(frozen=True)
class Report:
    """The plan of a training.

    Args:
        plan: that of the batch of full length.
        short: the batch of short documents and its plan, if that takes more memory.
        room: the device's memory, if it is known.
        fitting: the number of full-length examples in the largest batch that fits into `room`.
    """

    arch: str
    setup: Setup
    plan: Plan
    short: tuple[Batch, Plan] | None
    room: Room | None
    fitting: int | None

    @property
    def peak(self) -> int:
        """The peak of the batch that takes the most memory, in bytes."""
        return max(self.plan.peak, self.short[1].peak if self.short else 0)

    @property
    def fits(self) -> bool | None:
        """Whether every batch fits into `room`; None if that is unknown."""
        return None if self.room is None else self.peak <= self.room.usable

    @property
    def largest_max_tokens(self) -> int | None:
        """--max-tokens for the largest full-length batch that fits; None without `room`."""
        if self.fitting is None:
            return None
        return self.fitting * max(self.setup.batch.source, self.setup.batch.target)


def make_report(args: Namespace, machine: Machine, room: Room | None) -> Report:
    """Plan the batch of full length, that of short documents, and the largest that fits; raises as read_setup."""
    setup = read_setup(args, machine)
    planned, short = plan(setup), short_documents(args)
    if short is not None:
        other = plan(replace(setup, batch=short))
        short = (short, other) if other.peak > planned.peak else None
    fitting = None if room is None else most_rows(setup, room.usable)
    return Report(args.arch, setup, planned, short, room, fitting)


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON values, with sizes in bytes."""
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
    """The report as text, with sizes in GiB."""
    setup, planned = report.setup, report.plan
    lines = [*_headline(report), "", f"{'held at the peak':<28}{'GiB':>8}"]
    lines += [f"{name:<28}{size / GIB:>8.2f}" for name, size in planned.parts.items()]
    lines += [f"{'total, ' + planned.moment:<28}{planned.peak / GIB:>8.2f}", ""]
    kept = ", ".join(f"{name} {size / GIB:.2f}" for name, size in planned.kept.items())
    lines.append(f"kept for the backward, GiB: {kept}; total {sum(planned.kept.values()) / GIB:.2f}")
    if report.short:
        batch, other = report.short
        lines.append(
            f"a batch of {batch.rows} short documents, with {batch.source:,} tokens in each document and summary, "
            f"takes more: {other.peak / GIB:.2f}; --batch-size {setup.batch.rows} prevents it"
        )
    lines += _room_lines(report)
    if setup.is_cuda:
        lines.append("computed, not measured: the formula was checked only on CPUs (benchmarks/plan.py)")
    return "\n".join(lines)


def _headline(report: Report) -> list[str]:
    setup, batch = report.setup, report.setup.batch
    backend = f"block attention: {setup.backend}" if setup.attends_by_blocks else "plain attention"
    checkpoints = "activation checkpointing" if setup.model.checkpoints else "no activation checkpointing"
    efficient = ", memory-efficient" if setup.is_memory_efficient else ""
    ranks = f"{setup.world_size} processes, {setup.ddp_backend}" if setup.world_size > 1 else "1 process"
    return [
        f"{report.arch}: {setup.model.parameters:,} parameters, vocabulary {setup.model.vocabulary:,}, width "
        f"{setup.model.encoder.width:,}; {setup.dtype}{efficient}, {setup.optimizer}, {ranks}",
        f"a batch of {batch.rows} x {batch.source:,} source tokens and {batch.target:,} target tokens; {backend}; "
        f"{checkpoints}",
    ]


def _room_lines(report: Report) -> list[str]:
    if report.room is None:
        return []
    room, verdict = report.room, "fits into" if report.fits else "does not fit into"
    first = f"{report.peak / GIB:.2f} GiB {verdict} {room.total:g} GiB, of which {room.reserve:g} are reserved"
    if not report.fitting:
        return [first, "not even one document of this length fits: try --checkpoint-activations, or fewer positions"]
    largest = f"--max-tokens {report.largest_max_tokens} --batch-size {report.fitting}"
    return [first, f"the largest batch of full length that fits: {largest}"]
