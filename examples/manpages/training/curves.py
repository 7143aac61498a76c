"""Training curves: loss and ROUGE-L over the hours, or the updates, of all stages one after the other.

python -m examples.manpages.training.curves --logs FILE... [--out CURVES.png] [--over hours|updates]

FILE is what fairseq-train wrote with `--log-format json`, on standard output or to its `--log-file`: a file a stage, in
the order of training. The points are written beside the picture as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError

# --- what fairseq-train logged ----------------------------------------------------------------------------------------

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


# --- the picture ------------------------------------------------------------------------------------------------------

PROGRAM = "examples.manpages.training.curves"
OUT = Path(__file__).parents[1] / "results" / "curves.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", required=True, nargs="+", type=Path, metavar="FILE", help="a log a stage")
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="FILE.png", help="default: examples/manpages/results/curves.png"
    )
    parser.add_argument("--over", choices=("hours", "updates"), default="hours", help="default: %(default)s")
    args = parser.parse_args(argv)
    return run_command(PROGRAM, lambda: write_curves(args.logs, args.out, args.over))


def write_curves(logs: Sequence[Path], out: Path, over: str = "hours") -> None:
    """Write the picture, and its points beside it as JSON: both or none.

    Raises:
        LSGError: a log cannot be read (training_log.py), or the picture is to be of another kind than PNG.
    """
    if out.suffix != ".png":
        raise LSGError(f"the picture is a PNG file: name it so, not {out.name}")
    points = read_logs(logs)
    records = [{name: value for name, value in asdict(point).items() if value is not None} for point in points]
    with staged_output(out.parent) as aside:
        (aside / out.with_suffix(".json").name).write_text("[\n" + ",\n".join(map(json.dumps, records)) + "\n]\n")
        draw(points, aside / out.name, over)
    print(f"wrote {out}")


def draw(points: Sequence[Point], path: Path, over: str = "hours") -> None:
    """Losses above; ROUGE-L of the validation set below, if it was measured; a line where a stage ends."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = 2 if any(point.rougeL is not None for point in points) else 1
    figure, axes = pyplot.subplots(rows, sharex=True, squeeze=False, figsize=(8, 3 * rows), layout="constrained")
    draw_stages(axes[0, 0], [point for point in points if point.kind == TRAINING], over, "loss", "C0-")
    draw_stages(axes[0, 0], [point for point in points if point.kind == VALIDATION], over, "loss", "C3o")
    draw_stages(axes[-1, 0], [point for point in points if point.rougeL is not None], over, "rougeL", "C2o-")
    for axis, label in zip(axes[:, 0], ("loss, as fairseq logs it", "ROUGE-L, validation"), strict=False):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        for end in stage_ends(points, over):
            axis.axvline(end, color="#888888", linestyle="--", linewidth=1)
    axes[0, 0].legend()
    axes[-1, 0].set_xlabel({"hours": "hours of updates", "updates": "updates"}[over])
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_stages(axis: Any, points: Sequence[Point], over: str, what: str, style: str) -> None:
    """A value of points of one kind, a line or a row of marks for each stage: their data differ."""
    for number, stage in enumerate(sorted({point.stage for point in points})):
        chosen = [point for point in points if point.stage == stage]
        label = chosen[0].kind if number == 0 else None
        axis.plot([getattr(p, over) for p in chosen], [getattr(p, what) for p in chosen], style, label=label, ms=4)


def stage_ends(points: Sequence[Point], over: str) -> list[float]:
    """Where each stage but the last one ends."""
    ends = {point.stage: getattr(point, over) for point in points}
    return list(ends.values())[:-1]


if __name__ == "__main__":
    sys.exit(main())
