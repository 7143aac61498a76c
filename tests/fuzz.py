"""Mutated inputs for every command and hub call: run each in a forked child with limits, and say what came of it."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import torch
from pyarrow import parquet

from lsg_fairseq import hub
from lsg_fairseq.commands import convert, export, preprocess, summarize
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.modules.lsg_config import LSGError

SECONDS, MEBIBYTES = 60, 2560
COMMANDS = {"convert": convert.main, "export": export.main, "preprocess": preprocess.main, "summarize": summarize.main}
FAST = ["--max-len-b", "3", "--beam", "1", "--quiet"]
# What a value of JSON or an argument is replaced by.
VALUES = [
    None,
    [],
    {},
    "",
    "x",
    -1,
    0,
    1,
    3,
    2**31,
    10**9,
    10**30,
    1e308,
    0.5,
    True,
    False,
    "\ud800",
    [[]],
    ["x"],
    {"x": 1},
]
NUMBERS = ["-1", "0", "1", "7", "1000000000", "99999999999999999999", "nan", "x", "", "1e9", "2147483648"]
# Why something that was changed may be accepted.
REASONS = {
    "json": "the field is not read, or the value is one that it may have",
    "text": "the line says the same, or is one that nothing depends on",
    "bytes": "other numbers in weights are weights, too",
    "argument": "the argument is not read for this model, or the value is one that it may have",
    "tensor": "the tensor is one that is not read, or holds what it may",
    "flag": "the value is in the flag's range",
    "call": "the value is in the argument's range",
    "lines": "documents may hold any text, and a file may have bytes that mean nothing",
}


@dataclass(frozen=True)
class Bases:
    """Sound inputs: an HF folder, a converted folder, a training folder, a data folder, documents."""

    hf: Path
    converted: Path
    trained: Path
    encoder: Path
    data: Path
    documents: Path


@dataclass
class Case:
    """A mutated input: what was done to it, and how it is used."""

    kind: str
    label: str
    run: Callable[[], int]


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    status: int
    printed: str
    seconds: float
    mebibytes: int
    timed_out: bool = False
    ran_code: bool = False

    @property
    def fault(self) -> str:
        """What is wrong with it, "" if nothing is."""
        found = {
            "a traceback": "Traceback (most recent call last)" in self.printed or "panicked at" in self.printed,
            "code was run": self.ran_code,
            f"over {SECONDS} s": self.timed_out,
            f"over {MEBIBYTES} MiB": self.mebibytes > MEBIBYTES,
            f"ended by signal {-self.status}": self.status < 0 and not self.timed_out,
            "no sentence": self.status > 0 and "error: " not in self.printed,
        }
        return ", ".join(name for name, is_so in found.items() if is_so)

    @property
    def line(self) -> str:
        """The case and its last line of output."""
        last = (self.printed.strip().splitlines() or [""])[-1]
        return (
            f"{self.case.kind}: {self.case.label} | {self.status}, {self.seconds:.1f} s, {self.mebibytes} MiB | {last}"
        )


@dataclass
class Report:
    """All outcomes of a run."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [f"{outcome.fault}: {outcome.line}" for outcome in self.outcomes if outcome.fault]

    def summary(self) -> str:
        """Counts, the accepted ones with their reason, and the sentences that name no cause of their own."""
        accepted = Counter(outcome.case.kind for outcome in self.outcomes if outcome.status == 0)
        generic = [outcome.line for outcome in self.outcomes if "something unexpected" in outcome.printed]
        parts = [
            f"{len(self.outcomes)} mutated inputs: {len(self.faults)} faults, {sum(accepted.values())} accepted, "
            f"{len(generic)} refused as unexpected, the others by a sentence of their own; "
            f"slowest {max(outcome.seconds for outcome in self.outcomes):.1f} s, "
            f"largest {max(outcome.mebibytes for outcome in self.outcomes)} MiB",
            *(f"accepted: {count} of kind {kind!r}: {REASONS[kind]}" for kind, count in sorted(accepted.items())),
            *(f"accepted: {outcome.line}" for outcome in self.outcomes if outcome.status == 0),
            *(f"unexpected: {line}" for line in generic),
            *(f"FAULT {line}" for line in self.faults),
        ]
        return "\n".join(parts)


def run_case(case: Case, canary: Path) -> Outcome:
    """Run a case in a child of this process; the canary is the file that code in an input would make."""
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        if (child := os.fork()) == 0:
            _be_child(case, output.fileno())
        timed_out = False
        while not (waited := os.wait4(child, os.WNOHANG))[0]:
            if time.monotonic() - start > SECONDS:
                timed_out = True
                os.killpg(child, signal.SIGKILL)
                waited = os.wait4(child, 0)
                break
            time.sleep(0.005)
        output.seek(0)
        printed = output.read().decode("utf-8", "replace")
    ran_code = canary.exists()
    canary.unlink(missing_ok=True)
    status = os.waitstatus_to_exitcode(waited[1])
    return Outcome(case, status, printed, time.monotonic() - start, waited[2].ru_maxrss >> 10, timed_out, ran_code)


def _be_child(case: Case, output: int) -> None:
    status = 70
    try:
        os.setpgid(0, 0)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = io.TextIOWrapper(os.fdopen(os.dup(0), "rb"))
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(n, "wb", closefd=False), line_buffering=True) for n in (1, 2)
        )
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        torch.set_num_threads(1)
        status = case.run()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 71
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


# --- how a mutated input is used ------------------------------------------------------------------------------------


def command(name: str, *arguments: object) -> Callable[[], int]:
    return lambda: COMMANDS[name]([str(argument) for argument in arguments])


def hub_call(work: Callable[[], object]) -> Callable[[], int]:
    """A call of the hub, whose LSGError is its sentence."""

    def call() -> int:
        try:
            work()
        except LSGError as error:
            print(f"hub: error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
        return 0

    return call


class Fuzzer:
    """Seeded cases over all kinds of files; each works on a copy of its own."""

    def __init__(self, bases: Bases, work: Path, seed: int) -> None:
        self.bases, self.work, self.random = bases, work, random.Random(seed)
        self.canary = work / "CANARY"
        self.code = f"__import__('pathlib').Path({str(self.canary)!r}).touch()"
        self.copy = work / "copy"
        self.lsg = hub.lsg_bart_base(bases.converted)

    def report(self, count: int) -> Report:
        """Run `count` cases, each kind in turn."""
        makers = (self.json_file, self.text_file, self.binary_file, self.argument, self.tensor, self.flag, self.call)
        makers += (self.lines,)
        report = Report()
        for number in range(count):
            shutil.rmtree(self.copy, ignore_errors=True)
            self.copy.mkdir()
            report.outcomes.append(run_case(makers[number % len(makers)](), self.canary))
        return report

    def json_file(self) -> Case:
        base = self._pick(self.bases.hf, self.bases.converted, self.bases.hf)
        folder = self._copied(base)
        path = self._pick(*sorted(p for p in folder.rglob("*.json") if p.stat().st_size < 1 << 20))
        label = self._mutate_json(path)
        return Case("json", f"{base.name}/{path.name} {label}", self._use(folder))

    def text_file(self) -> Case:
        folder = self._copied(self._pick(self.bases.converted, self.bases.hf))
        path = self._pick(*sorted(folder.rglob("*.txt")))
        lines = path.read_bytes().splitlines(keepends=True)
        how = self._pick("swap", "drop", "double", "garble", "cut", "reverse", "empty")
        place = self.random.randrange(len(lines))
        if how == "swap":
            other = self.random.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        elif how == "drop":
            del lines[place]
        elif how == "double":
            lines.insert(place, lines[place])
        elif how == "garble":
            lines[place] = self.random.randbytes(20) + b"\n"
        elif how == "cut":
            lines = lines[:place]
        elif how == "reverse":
            lines.reverse()
        else:
            lines = []
        path.write_bytes(b"".join(lines))
        return Case("text", f"{path.name} {how} at {place}", self._use(folder))

    def binary_file(self) -> Case:
        base = self._pick(self.bases.hf, self.bases.converted, self.bases.trained, self.bases.data, self.bases.encoder)
        folder = self._copied(base)
        path = self._pick(*sorted(p for p in folder.rglob("*") if p.suffix in (".pt", ".safetensors", ".json", ".idx")))
        content = bytearray(path.read_bytes())
        how = self._pick("flip", "cut", "zeros", "appended", "pickle", "empty", "text")
        place = self.random.randrange(max(len(content), 1))
        if how == "flip":
            for _ in range(self.random.choice([1, 8, 64])):
                content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        elif how == "cut":
            content = content[:place]
        elif how == "zeros":
            content[place : place + 512] = bytes(len(content[place : place + 512]))
        elif how == "appended":
            content += self.random.randbytes(100)
        elif how == "pickle":
            content = pickle.dumps(_Evil(self.code))
        else:
            content = b"" if how == "empty" else Path("/etc/passwd").read_bytes()
        path.write_bytes(content)
        return Case("bytes", f"{base.name}/{path.name} {how} at {place}", self._use(folder))

    def argument(self) -> Case:
        folder = self._copied(self._pick(self.bases.converted, self.bases.trained, self.bases.encoder))
        path = next(folder.glob("*.pt"))
        state = load_checkpoint_file(str(path))
        group = self._pick("model", "model", "model", "task", "checkpoint")
        held = state["cfg"][group]
        names = vars(held) if isinstance(held, Namespace) else held
        name = self._pick(*sorted(names), "adaptive_softmax_cutoff", "_name", "arch", "encoder_xformers_att_config")
        value = self._pick(*VALUES, self.code, self.code, f"[{self.code}]", "fconv", "transformer", "lsg_roberta_base")
        where = state["cfg"] if self.random.random() < 0.05 else None
        if where is not None:
            where[group] = value
        elif isinstance(held, Namespace):
            setattr(held, name, value)
        else:
            held[name] = value
        torch.save(state, path)
        return Case("argument", f"{group}.{name} = {value!r:.60}", self._use(folder))

    def tensor(self) -> Case:
        folder = self._copied(self._pick(self.bases.converted, self.bases.trained, self.bases.encoder, self.bases.hf))
        path = next(p for p in folder.iterdir() if p.suffix in (".pt", ".safetensors"))
        is_hf = path.suffix == ".safetensors"
        if is_hf:
            from safetensors.torch import load_file, save_file

            weights = load_file(path)
        else:
            state = load_checkpoint_file(str(path))
            weights = state["model"] = dict(state["model"])
        name = self._pick(*sorted(weights))
        how = self._pick("NaN", "inf", "int", "bool", "complex", "sparse", "shape", "lost", "extra", "huge", "name")
        if is_hf and how == "sparse":
            how = "NaN"
        self._mutate_tensor(weights, name, how)
        if is_hf:
            save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path, {"format": "pt"})
        else:
            torch.save(state, path)
        return Case("tensor", f"{path.name} {name} {how}", self._use(folder))

    def flag(self) -> Case:
        value = self._pick(*NUMBERS)
        tools = {
            "convert": ([self.bases.hf, self.copy / "out"], ["--max-source-positions", "--max-target-positions"]),
            "summarize": (
                [self.bases.documents, "--checkpoint", self.bases.converted, *FAST],
                [
                    *("--max-source-positions", "--beam", "--lenpen", "--min-len", "--max-len-b", "--batch-size"),
                    *("--no-repeat-ngram-size", "--num-shards", "--shard-id", "--device", "--dtype", "--checkpoint"),
                    *("--document-field", "--summary-field", "--tokenizer", "--revision", "--output"),
                ],
            ),
            "preprocess": (
                ["--train", self.bases.documents, "--out", self.copy / "out", "--workers", "1"],
                ["--train-tokenizer", "--tokenizer", "--document-field", "--train"],
            ),
            "export": ([self.bases.converted, self.copy / "out"], ["--tokenizer"]),
        }
        name = self._pick(*tools)
        arguments, flags = tools[name]
        lsg = [
            "block-size",
            "sparse-block-size",
            "sparsity-factor",
            "num-global-tokens",
            "lsh-num-pre-rounds",
            "lsh-seed",
        ]
        lsg += ["sparsity-type", "attention"]
        flags += [f"--{n}" for n in lsg] if name == "convert" else [f"--lsg-{n}" for n in lsg] * (name == "summarize")
        chosen = self._pick(*flags)
        if chosen == "--output":
            value = str(self.copy / (value or "."))
        return Case("flag", f"{name} {chosen} {value!r}", command(name, *arguments, f"{chosen}={value}"))

    def call(self) -> Case:
        value = self._pick(
            *VALUES, 513, b"x", object, float("nan"), torch.zeros(2, 2), torch.tensor([10**6]), Path("/")
        )
        lsg, base = self.lsg, self.bases.converted
        settings = [*hub.entries.SIGNATURE.parameters]
        name = self._pick(*settings)
        calls: dict[str, Callable[[], object]] = {
            f"lsg_bart_base({name}=)": lambda: hub.lsg_bart_base(**{"checkpoint": base, name: value}),
            "summarize()": lambda: lsg.summarize(value, max_len_b=3),
            "summarize(beam=)": lambda: lsg.summarize("a cat", beam=value, max_len_b=3),
            "summarize(lenpen=)": lambda: lsg.summarize("a cat", lenpen=value, max_len_b=3),
            "summarize(max_len_b=)": lambda: lsg.summarize("a cat", max_len_b=value),
            "summarize(batch_size=)": lambda: lsg.summarize(["a cat"], batch_size=value, max_len_b=3),
            "encode()": lambda: lsg.encode(value),
            "decode()": lambda: lsg.decode(value),
            "collate()": lambda: lsg.collate(value),
            "extract_features()": lambda: lsg.extract_features(value),
            "predict()": lambda: lsg.predict(value, lsg.encode("a cat")),
            "register_classification_head()": lambda: lsg.register_classification_head("h", value),
            "fill_mask()": lambda: lsg.fill_mask(value),
            "fill_mask(topk=)": lambda: lsg.fill_mask("a <mask>", topk=value),
        }
        label = self._pick(*calls, f"lsg_bart_base({name}=)")
        return Case("call", f"{label} {value!r:.40}", hub_call(calls[label]))

    def lines(self) -> Case:
        path = self.copy / self._pick("in.jsonl", "in.txt", "in.json", "array.json", "in.jsonl.gz", "in.parquet")
        shutil.copy(self.bases.documents, path)
        how = self._pick("json", "bytes", "long", "deep", "empty", "journal", "nul")
        if path.name in ("array.json", "in.jsonl.gz", "in.parquet"):
            how = self._pick("flip", "flip", "cut", "bytes")
            self._write_other_format(path, how)
        if how == "json":
            self._mutate_json_line(path)
        elif how == "bytes":
            path.write_bytes(self.random.randbytes(3000))
        elif how == "long":
            path.write_text(
                json.dumps({"document": self._pick("a cat ", "cat", " ") * 1_700_000, "summary": "s"}) + "\n"
            )
        elif how == "deep":
            path.write_text("[" * 100_000 + "\n")
        elif how == "nul":
            path.write_text('{"document": "a\\u0000\\ud800 cat", "summary": "b"}\n')
        elif how == "empty":
            path.write_text(self._pick("", "\n", "\r\n", "\ufeff"))
        out = self.copy / "out.jsonl"
        if how == "journal":
            Path(f"{out}.journal").write_bytes(self.random.randbytes(50) + b"\n")
            out.write_text(self._pick("", "x\n", "{}\n"))
        tools = [
            command("summarize", path, "--checkpoint", self.bases.converted, "--jsonl", "--output", out, *FAST),
            command(
                "preprocess", "--train", path, "--out", self.copy / "data", "--tokenizer", self.bases.data / "tokenizer"
            ),
        ]
        return Case("lines", f"{path.name} {how}", tools[0] if how == "journal" else self._pick(*tools))

    def _write_other_format(self, path: Path, how: str) -> None:
        """The documents as an array, compressed or as Parquet, with some bytes changed or the end missing."""
        records = [json.loads(line) for line in path.read_text().splitlines()]
        if path.suffix == ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=3)
            content = bytearray(path.read_bytes())
        else:
            lines = json.dumps(records) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in records)
            content = bytearray(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
        if how == "cut":
            del content[self.random.randrange(len(content)) :]
        for _ in range(self.random.randint(1, 8) if how == "flip" else 0):
            content[self.random.randrange(len(content))] = self.random.randrange(256)
        path.write_bytes(content)

    def _use(self, folder: Path) -> Callable[[], int]:
        """One of the ways that a folder of this kind can be used."""
        out, documents = self.copy / "out", self.bases.documents
        if (folder / "preprocess.json").is_file():
            return command("preprocess", "--test", documents, "--out", folder, "--workers", "1")
        if folder.name == self.bases.encoder.name:
            ways = [hub_call(lambda: hub.lsg_roberta_base(folder).extract_features(torch.tensor([0, 5, 2])))]
            tokenizer = self.bases.data / "tokenizer"
            ways = [hub_call(lambda: hub.lsg_roberta_base(folder, tokenizer=tokenizer).fill_mask("a <mask>"))]
            return self._pick(*ways, command("export", folder, out, "--tokenizer", tokenizer))
        ways = [
            hub_call(lambda: hub.lsg_bart_base(folder).summarize("a cat sat", max_len_b=3)),
            command("summarize", documents, "--checkpoint", folder, *FAST),
            command("convert", folder, out),
        ]
        return self._pick(*ways, *([] if folder.name == self.bases.hf.name else [command("export", folder, out)]))

    def _mutate_json(self, path: Path) -> str:
        content = json.loads(path.read_text())
        how = self._pick("value", "value", "value", "value", "lost", "whole", "cut", "bytes")
        if how == "cut":
            path.write_bytes(path.read_bytes()[: self.random.randrange(path.stat().st_size)])
            return "cut"
        if how == "bytes":
            path.write_bytes(b"\xff\xfe" + path.read_bytes())
            return "no UTF-8"
        value = self._pick(*VALUES, self.code)
        label = f"is {value!r:.40}"
        places = list(_places(content))
        if how == "whole" or not places:
            content = value
        else:
            holder, key = self._pick(*places)
            label = f"{key} {how} {value!r:.40}"
            if how == "lost":
                del holder[key]
            else:
                holder[key] = copy.deepcopy(value)
        path.write_text(json.dumps(content))
        return label

    def _mutate_json_line(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        place = self.random.randrange(len(lines))
        record = json.loads(lines[place])
        record[self._pick("document", "summary", "x")] = self._pick(*VALUES)
        lines[place] = json.dumps(self._pick(record, record, [record], None, "x"))
        path.write_text("\n".join(lines) + "\n")

    def _mutate_tensor(self, weights: dict[str, Any], name: str, how: str) -> None:
        tensor = weights[name].clone().float()
        kinds = {"int": torch.int64, "bool": torch.bool, "complex": torch.complex64}
        if how in kinds:
            weights[name] = tensor.to(kinds[how])
        elif how in ("NaN", "inf"):
            tensor.view(-1)[0] = float(how)
            weights[name] = tensor
        elif how == "sparse":
            weights[name] = tensor.to_sparse()
        elif how == "shape":
            weights[name] = self._pick(tensor[..., :-1], tensor[None], tensor.reshape(-1), tensor[:0]).contiguous()
        elif how == "lost":
            del weights[name]
        elif how == "extra":
            weights.update({f"{name}.{i}": torch.zeros(1) for i in range(3000)})
        elif how == "huge":
            weights[name] = tensor * 1e30
        else:
            weights[self._pick(name + "x", "", "encoder.layers.99.fc1.weight")] = weights.pop(name)

    def _copied(self, base: Path) -> Path:
        return Path(shutil.copytree(base, self.copy / base.name))

    def _pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)


class _Evil:
    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


def _places(content: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of values in JSON, not too deep: a vocabulary has thousands."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:60]:
        yield content, key
        if depth < 3:
            yield from _places(value, depth + 1)
