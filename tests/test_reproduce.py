"""make reproduce without a network: its tables, the download from a stand-in of the hub, and scores of a tiny model."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pyarrow
import pytest
from hub_checkpoints import documents_of, lively_copy
from hub_server import FakeHub, serve, use_environment
from pyarrow import parquet

from benchmarks import reproduce
from lsg_fairseq.hub.entry_checkpoints import ENTRY_CHECKPOINTS
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.scoring import ROUGE_NAMES, rouge_scores

FAST = ["--", "--beam", "1", "--max-len-b", "6", "--quiet", "--device", "cpu"]


def test_the_tables_go_together() -> None:
    for run in reproduce.PUBLISHED:
        checkpoint, test_set = ENTRY_CHECKPOINTS[run.entry], reproduce.TEST_SETS[run.test_set]
        assert checkpoint.fine_tuned_on == f"scientific_papers ({run.test_set})"
        assert test_set.repository == f"ccdv/{run.test_set}-summarization"
        assert test_set.file.endswith(".parquet")
        assert all(10 < value < 60 for value in run.rouge)
        r1, r2, rl, rlsum = run.rouge
        assert r2 < rl < rlsum < r1
    assert len({run.entry for run in reproduce.PUBLISHED}) == len(reproduce.PUBLISHED)


@pytest.fixture
def stand_in(corpus: Path, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> reproduce.Published:
    """A model of the tests with a test set of the tests, in the place of the published ones."""
    model = lively_copy(checkpoints, tmp_path / "model")
    papers = [{"article": text, "abstract": text[:40]} for text in documents_of(corpus)[:5]]
    parquet.write_table(pyarrow.Table.from_pylist(papers), tmp_path / "test.parquet")
    test_set = reproduce.TestSet("someone/papers", "document/test.parquet", "article", "abstract", len(papers))
    run = reproduce.Published(str(model), "tiny", (4.0, 1.0, 2.0, 3.0), "main")
    monkeypatch.setitem(reproduce.TEST_SETS, "tiny", test_set)
    monkeypatch.setattr(reproduce, "PUBLISHED", (run,))
    monkeypatch.chdir(tmp_path)
    return run


def test_the_whole_way(
    stand_in: reproduce.Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Download, summaries, scores; a second time nothing is fetched or summarised again."""
    test_set = reproduce.TEST_SETS["tiny"]
    name = f"datasets/{test_set.repository}"
    with serve(FakeHub(name, {test_set.file: (tmp_path / "test.parquet").read_bytes()})) as hub:
        use_environment(monkeypatch, HF_ENDPOINT=hub.url, HF_HOME=tmp_path / "hf")
        hub.drop_once = {test_set.file}
        # The entry's name becomes a file's name, and this one is a path.
        monkeypatch.setattr(reproduce, "PUBLISHED", (stand_in._replace(entry="model"),))
        assert reproduce.main(["--folder", "run", *FAST]) == 0
        output = tmp_path / "run" / "model-every1.jsonl"
        before, fetched = output.stat().st_mtime_ns, len([r for r in hub.requests if r[0] == "GET"])
        assert reproduce.main(["--folder", "run", *FAST]) == 0
        assert (output.stat().st_mtime_ns, len([r for r in hub.requests if r[0] == "GET"])) == (before, fetched)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    each = [rouge_scores(record["abstract"], record["lsg_summary"]) for record in records]
    means = [round(100 * statistics.fmean(scores[name] for scores in each), 2) for name in ROUGE_NAMES]
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == {"every": 1, "rouge": {"model": means}}
    figures = " / ".join(f"{mean:.2f}" for mean in means)
    assert f"| model, tiny | {figures} | 4.00 / 1.00 / 2.00 / 3.00 | main |" in capsys.readouterr().out


def test_a_share_of_the_papers(stand_in: reproduce.Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "fetch", lambda test_set: tmp_path / "test.parquet")
    results = reproduce.reproduce([stand_in._replace(entry="model")], tmp_path / "run", 2, FAST[1:])
    assert len((tmp_path / "run" / "model-every2.jsonl").read_text().splitlines()) == 3
    assert set(results) == {"model"}
    short = tmp_path / "run" / "model-every2.jsonl"
    with pytest.raises(LSGError, match="has 3 summaries for 5 papers: run the command again"):
        reproduce.score(short, reproduce.TEST_SETS["tiny"], 5)


def test_what_is_wrong_is_one_sentence(
    stand_in: reproduce.Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_environment(monkeypatch, HF_HUB_OFFLINE=1, HF_HOME=tmp_path / "empty")
    assert reproduce.main([]) == 1
    assert "document/test.parquet of someone/papers cannot be fetched (" in capsys.readouterr().err
    monkeypatch.setitem(reproduce.TEST_SETS, "tiny", reproduce.TEST_SETS["tiny"]._replace(papers=6))
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "test.parquet"))
    assert reproduce.main([]) == 1
    assert "test.parquet has 5 papers and should have 6: the data set has changed" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--every", "0"])
