"""The benchmarks' own code: what turns measurements into claims, and the shortest run of each kind of stage."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import REPOSITORY, run

PLAN_RESULTS = REPOSITORY / "benchmarks" / "results" / "plan.json"
ENCODERS = ("lsg_fairseq", "floor", "public_lsg", "bart_full", "led", "bigbird")


def load(name: str) -> ModuleType:
    return import_module(f"benchmarks.{name}")


def measured(seconds: float, extra_mib: float = 100.0) -> dict[str, float]:
    return {"median_s": seconds, "min_s": seconds, "max_s": seconds, "built_mib": 500.0, "extra_mib": extra_mib}


def results_with(ours_16k: float) -> dict[str, Any]:
    rows = []
    for tokens, ours in ((4096, 1.0), (16384, ours_16k)):
        models = {name: measured(ours if name == "lsg_fairseq" else 2.0) for name in ENCODERS}
        rows.append({"title": "encoder forward", "names": list(ENCODERS), "tokens": tokens, "models": models})
    return {"machine": "a machine", "rounds": 5, "rows": rows}


@pytest.mark.parametrize(
    ("ours_16k", "reached"), [(4.0, "| 1.00 | ≤ 1.15 | yes |"), (6.0, "| 1.50 | ≤ 1.15 | **no** |")]
)
def test_a_missed_goal_is_said(ours_16k: float, reached: str) -> None:
    text = load("speed_report").to_markdown(results_with(ours_16k))
    line = next(line for line in text.splitlines() if "time for each token" in line)
    assert line.endswith(reached)
    assert "| **lsg_fairseq** | 1,000 | 1.00 |" in text
    assert "| LED | 2,000 | 2.00 |" in text


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib comes with the benchmarks extra")
    load("speed_report").draw(results_with(4.0), tmp_path / "speed.png")
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("theirs", "reached"), [(8.8, "| 2.20 | ≥ 2.2 | yes |"), (8.0, "| 2.00 | ≥ 2.2 | **no** |")])
def test_summaries_are_set_beside_their_goals(theirs: float, reached: str) -> None:
    report = load("summarizing_report")
    contest = next(c for c in report.rows(quick=False) if c.title == report.LONG)._asdict()
    found = {"lsg_fairseq float32": 4.0, "public_lsg float32": theirs}
    figures = {label: {**measured(seconds), "same_ids": True, "runs": 5} for label, seconds in found.items()}
    text = report.to_markdown({"machine": "a machine", "rounds": 5, "rows": [{**contest, "results": figures}]})
    assert next(line for line in text.splitlines() if "≥" in line).endswith(reached)
    assert "| **lsg_fairseq**, float32 | 4.0 | 4.0 - 4.0 (5) | 1.00 | 60.0 | 100 | yes |" in text


@pytest.mark.skipif(
    not PLAN_RESULTS.exists(), reason="python -m benchmarks.plan has not been run yet: no results are committed"
)
def test_plans_are_within_the_bound() -> None:
    """What is committed covers three sizes in both dtypes with and without checkpointing, and is what is claimed."""
    plan, results = load("plan"), json.loads(PLAN_RESULTS.read_text())
    keys = ("title", "dtype", "checkpoint_activations")
    assert {tuple(row[key] for key in keys) for row in results["rows"]} == set(
        product(plan.CASES, plan.DTYPES, (False, True))
    )
    assert [row["ratio"] for row in results["rows"] if abs(row["ratio"] - 1) > plan.ALLOWED] == []
    assert PLAN_RESULTS.with_suffix(".md").read_text() == plan.to_markdown(results)


def test_a_plan_beyond_the_bound_is_said() -> None:
    row = {"title": "one", "dtype": "fp32", "checkpoint_activations": True, "planned_mib": 80.0, "peak_mib": 100.0}
    text = load("plan").to_markdown({"machine": "a machine", "rows": [row | {"ratio": 0.8}]})
    assert text.splitlines()[-1] == "| one | fp32 | yes | 80 | 100 | 0.800 | **no** |"


@pytest.mark.slow
def test_needle_runs_from_end_to_end(tmp_path: Path) -> None:
    printed = run(sys.executable, "-m", "benchmarks.needle", "--quick", "--folder", tmp_path, cwd=REPOSITORY)
    assert "| norm | trained |" in printed
    assert (tmp_path / "needle.json").exists()


def test_a_results_file_goes_on_under_the_same_conditions_alone(tmp_path: Path) -> None:
    file, out = load("results_file"), tmp_path / "out.json"
    file.add_row(file.open_results(out, {"machine": "a"}), {"title": "first"}, out)
    results = file.open_results(out, {"machine": "a"})
    file.add_row(results, {"title": "second"}, out)
    assert json.loads(out.read_text()) == {"machine": "a", "rows": [{"title": "first"}, {"title": "second"}]}
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    for others in ({"machine": "b"}, {"machine": "a", "rounds": 5}):
        with pytest.raises(SystemExit, match="measured under other conditions; remove it, or name another --out"):
            file.open_results(out, others)
