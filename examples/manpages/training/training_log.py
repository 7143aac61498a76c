"""What fairseq-train logged, stage after stage: losses and ROUGE over all updates and over the hours they took."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError

# fairseq/logging/progress_bar.py, JsonProgressBar: bare in a --log-file, behind time and name on standard output.
LINE = re.compile(r'(?:.* \| )?(\{"epoch": .*)')
TRAINING, VALIDATION = "training", "validation"


@dataclass(frozen=True)
class Point:
    """What was logged at an update; `updates` and `hours` count from the start of the first stage.

    Hours are those of the updates themselves (fairseq's train_wall), without validation. rougeL needs --eval-rouge.
    """

    kind: str
    stage: int
    updates: int
    hours: float
    loss: float
    rougeL: float | None = None


def read_logs(paths: Sequence[Path]) -> list[Point]:
    """The points of all stages, a log a stage, in the order of training.

    Raises:
        LSGError: a log is missing, has no training progress in JSON, or has a line that is cut short.
    """
    points: list[Point] = []
    for stage, path in enumerate(paths, start=1):
        updates, hours = (points[-1].updates, points[-1].hours) if points else (0, 0.0)
        for point in with_summed_hours(read_log(path)):
            total = round(hours + point.hours, 4)
            points.append(replace(point, stage=stage, updates=updates + point.updates, hours=total))
    return points


def read_log(path: Path) -> list[Point]:
    """The points of one stage, as of stage 0; `hours` are those since the last training point.

    A run that goes on from a checkpoint logs again what it does again: that takes the place of what was lost. So do
    lines written more than once, which is fairseq's way with --log-file.

    Raises:
        LSGError: the log is missing, has no training progress in JSON, or has a line that is cut short.
    """
    points: list[Point] = []
    for point in _points_of(path):
        points = [p for p in points if p.updates < point.updates or (p.kind, point.kind) == (TRAINING, VALIDATION)]
        points.append(point)
    if not any(point.kind == TRAINING for point in points):
        raise LSGError(f"{path} has no training progress: run fairseq-train with --log-format json")
    return points


def with_summed_hours(points: Sequence[Point]) -> Iterator[Point]:
    """The points with the hours since the start of their stage."""
    hours = 0.0
    for point in points:
        hours += point.hours
        yield replace(point, hours=hours)


def _points_of(path: Path) -> Iterator[Point]:
    for number, text in read_lines(path):
        if line := LINE.fullmatch(text):
            try:
                point = _point_of(json.loads(line[1]))
            except (ValueError, KeyError, TypeError) as error:
                raise LSGError(
                    f"{path}, line {number}, is cut short, or not what fairseq logs ({error}): take it out"
                ) from error
            if point is not None:
                yield point


def _point_of(values: dict[str, str]) -> Point | None:
    """The point of a line; None: the summary of an epoch."""
    if "valid_loss" in values:
        rouge = float(values["valid_rougeL"]) if "valid_rougeL" in values else None
        return Point(VALIDATION, 0, int(values["valid_num_updates"]), 0.0, float(values["valid_loss"]), rouge)
    if "loss" in values:
        return Point(TRAINING, 0, int(values["num_updates"]), float(values["train_wall"]) / 3600, float(values["loss"]))
    if "train_loss" in values:
        return None
    raise KeyError("loss")
