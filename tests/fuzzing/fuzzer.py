"""Seeded cases over all commands, hub calls and kinds of files; each works on a copy of its own."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fairseq_cli.generate
import fairseq_cli.interactive
import fairseq_cli.train
import fairseq_cli.validate  # noqa: F401 (all four: imported once, not in every case)
import pyarrow
import torch
from fairseq import options
from fairseq.models import MODEL_REGISTRY
from pyarrow import parquet

from fuzzing.bases import ENCODERS, ENTRY_OF, Bases
from fuzzing.mutations import VALUES, Mutator, unwritable
from fuzzing.runner import Case, Report, run_case
from fuzzing.uses import (
    ALONE,
    FAST,
    SEARCH,
    TASK,
    TINY,
    command,
    content_of,
    fairseq,
    hub_call,
    hub_load,
    hypotheses,
    printed_lines,
)
from lsg_fairseq import hub
from lsg_fairseq.commands import average, convert, export, plan, preprocess, summarize

NUMBERS = ["-1", "0", "1", "7", "1000000000", "99999999999999999999", "nan", "inf", "x", "", "1e9", "2147483648", "0.5"]
NUMBERS += ["-0.5", "1e-400", "1e400", "1,2", "None", "True", "[1]", "{}", "'"]
# Flags that start processes, wait for others or end the test's own.
LEFT_ALONE = {"help", "num_workers", "num_workers_valid", "profile", "tpu", "wandb_project", "azureml_logging"}
LEFT_ALONE |= {"distributed_world_size", "distributed_num_procs", "distributed_init_method", "plasma_path", "aim_repo"}
OTHER_FORMATS = ("array.json", "in.jsonl.gz", "in.parquet")
# What an interface may be called with beside the values that files hold.
ODD = (513, b"x", object, Path("/"), ["a", None], ["a", "b"], [1, 2], (), "a cat " * 9000)
ODD += (torch.zeros(2, 2), torch.tensor([10**6]), torch.tensor([-1]), torch.tensor(3), torch.tensor([0.5]))
ODD += (torch.zeros(0, dtype=torch.long),)
Use = tuple[str, Callable[[], int], Path | None, Callable[[str], str] | None]


class Fuzzer:
    """Draws cases from a seed."""

    def __init__(self, bases: Bases, work: Path, seed: int) -> None:
        self.bases, self.work, self.random = bases, work, random.Random(seed)
        self.canary, self.copy = work / "CANARY", work / "copy"
        self.mutator = Mutator(self.random, f"__import__('pathlib').Path({str(self.canary)!r}).touch()")
        self.pick = self.mutator.pick
        self.lsg, self.encoder = hub.lsg_bart_base(bases.converted), hub.lsg_roberta_base(bases.encoder)
        self.sound: dict[str, str] = {}
        os.environ["TORCH_HOME"] = str(work / "torch-home")

    def report(self, count: int) -> Report:
        """Run `count` cases, each kind in turn."""
        makers = (self.checkpoint, self.checkpoint, self.trained, self.data, self.flag, self.call, self.lines)
        makers += (self.checkpoint, self.fairseq_flag, self.cached, self.hub_arguments)
        report = Report()
        for number in range(count):
            self._clear()
            case = makers[number % len(makers)]()
            report.add(run_case(case, self.canary))
        return report

    # --- files -------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Case:
        """A file of a checkpoint's folder."""
        name = self.pick(*self.bases.names)
        return self._changed(name, self._uses(name))

    def trained(self) -> Case:
        """A file of a checkpoint that fairseq's commands use."""
        name = self.pick("converted", "trained", "converted_pegasus")
        return self._changed(name, self._fairseq_uses(name))

    def data(self) -> Case:
        """A file of a data folder."""
        return self._changed("data", self._data_uses())

    def cached(self) -> Case:
        """A file that an earlier run left: a conversion in torch.hub's folder, an output with its journal."""
        if self.random.random() < 0.5:
            return self._changed("output", self._output_uses(), made=self._half_done)
        return self._changed("cache", self._cache_uses(), made=self._cache)

    def _changed(
        self, name: str, uses: Callable[[Path], list[Use]], made: Callable[[Path], None] | None = None
    ) -> Case:
        folder, place = self.copy / name, self.random.randrange(1000)

        def use() -> Use:
            """The folder as it was, and one of the ways to use it."""
            made(folder) if made else shutil.copytree(self.bases.folder / name, folder)
            found = uses(folder)
            return found[place % len(found)]

        label, run, out, result = use()
        result = result or (content_of(out) if out is not None else None)
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".md", ".lock", ".log"))
        kind = self.pick(*sorted({p.suffix for p in files}))  # or all would be JSON
        path = self.pick(*(p for p in files if p.suffix == kind))
        how = self.mutator.change(path)
        case = Case(f"{path.suffix or path.name} file", f"{name}/{path.relative_to(folder)} {how}; {label}", run, out)
        if result:
            case.result, case.sound = result, lambda: self._sound(f"{name} {label}", use, result)
        return case

    def _sound(self, key: str, use: Callable[[], Use], result: Callable[[str], str]) -> str:
        """What the unchanged input gives."""
        if key not in self.sound:
            self._clear()
            outcome = run_case(Case("sound", key, use()[1]), self.canary)
            if outcome.status or outcome.fault:
                raise AssertionError(f"the unchanged input fails: {outcome.fault} {outcome.line}\n{outcome.printed}")
            self.sound[key] = result(outcome.printed)
        return self.sound[key]

    def _clear(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir()

    def _uses(self, name: str) -> Callable[[Path], list[Use]]:
        entry, out, documents = ENTRY_OF[name], self.copy / "out", self.bases.documents
        tokenizer = {"tokenizer": str(self.bases.data / "tokenizer")} if name == "trained" else {}
        flags = ["--tokenizer", tokenizer["tokenizer"]] if tokenizer else []

        def summarizers(folder: Path) -> list[Use]:
            load = lambda: hub_load(entry, checkpoint=str(folder), **tokenizer)  # noqa: E731
            uses: list[Use] = [
                (f"hub {entry}", hub_call(lambda: load().summarize("the cat sat", max_len_b=3)), None, printed_lines),
                (
                    "summarize",
                    command("summarize", documents, "--checkpoint", folder, *FAST, *flags),
                    None,
                    printed_lines,
                ),
                ("convert", command("convert", folder, out, *flags), out, None),
            ]
            return uses + ([("export", command("export", folder, out, *flags), out, None)] if _is_ours(name) else [])

        def encoders(folder: Path) -> list[Use]:
            load = lambda: hub_load(entry, checkpoint=str(folder))  # noqa: E731
            features = lambda: load().extract_features(load().encode("the cat")).sum()  # noqa: E731
            return [
                (f"hub {entry}", hub_call(features), None, printed_lines),
                ("convert", command("convert", folder, out), out, None),
                *([("export", command("export", folder, out), out, None)] if _is_ours(name) else []),
            ]

        is_encoder = name in ENCODERS or name in ("encoder", "roberta_2019", "converted_bert")
        return encoders if is_encoder else summarizers

    def _fairseq_uses(self, name: str) -> Callable[[Path], list[Use]]:
        data = self.bases.data if name != "converted_pegasus" else self._pegasus_data()
        saved = ["--save-dir", self.copy / "saved", *TINY, "--max-update", "1", "--disable-validation", "--no-save"]

        mean = self.copy / "out.pt"

        def uses(folder: Path) -> list[Use]:
            path = folder / ("checkpoint_best.pt" if name == "trained" else "model.pt")
            common = [data, *TASK, "--path", path]
            found: list[Use] = [
                ("fairseq-generate", fairseq("generate", *common, *SEARCH, "--gen-subset", "valid"), None, hypotheses),
                ("fairseq-validate", fairseq("validate", *common, "--batch-size", "4"), None, None),
                ("fairseq-interactive", fairseq("interactive", *common, *ALONE, stdin=self._text()), None, hypotheses),
                ("average", command("average", path, path, "--output", mean), mean, None),
            ]
            if name == "trained":
                train = ["train", data, *TASK, *saved, "--max-epoch", "9"]
                ways = {
                    "--restore-file": folder / "checkpoint_last.pt",
                    "--finetune-from-model": path,
                    "--save-dir": folder,
                }
                found += [(f"fairseq-train {way}", fairseq(*train, way, at), None, None) for way, at in ways.items()]
            return found

        return uses

    def _data_uses(self) -> Callable[[Path], list[Use]]:
        path = ["--path", self.bases.converted / "model.pt"]

        def uses(folder: Path) -> list[Use]:
            common = [folder, *TASK, *path]
            train = [folder, *TASK, *TINY, "--max-update", "1", "--save-dir", self.copy / "saved", "--no-save"]
            again = command("preprocess", "--test", self.bases.documents, "--out", folder, "--workers", "1")
            generate = fairseq("generate", *common, *SEARCH, "--gen-subset", "valid")
            interactive = fairseq("interactive", *common, *ALONE, stdin=self._text())
            new = self.copy / "new"
            other = [
                "--test",
                self.bases.documents,
                "--tokenizer",
                folder / "tokenizer",
                "--out",
                new,
                "--workers",
                "1",
            ]
            return [
                ("fairseq-generate", generate, None, hypotheses),
                ("fairseq-validate", fairseq("validate", *common, "--batch-size", "4"), None, None),
                ("fairseq-interactive", interactive, None, hypotheses),
                ("fairseq-train", fairseq("train", *train), None, None),
                ("preprocess into it", again, None, None),
                ("preprocess --tokenizer", command("preprocess", *other), new, None),
            ]

        return uses

    def _half_done(self, folder: Path) -> None:
        """Documents, an output of which the second half is missing, and a whole one, each with its journal."""
        folder.mkdir()
        made = self.bases.folder / "output"
        if not made.is_dir():
            made.mkdir()
            self._in_child(self._summarize_to(made / "out.jsonl"))
        shutil.copy(self.bases.documents, folder / "in.jsonl")
        for path in made.iterdir():
            text = path.read_text().splitlines(keepends=True)
            (folder / path.name).write_text("".join(text[: len(text) // 2 + 1]))
            shutil.copy(path, folder / path.name.replace("out.", "whole."))

    def _summarize_to(self, out: Path, *flags: object) -> Callable[[], int]:
        return command("summarize", self.bases.documents, "--checkpoint", self.bases.converted, "--jsonl", "--output",
                       out, *FAST, *flags)  # fmt: skip

    def _output_uses(self) -> Callable[[Path], list[Use]]:
        def uses(folder: Path) -> list[Use]:
            out = folder / "out.jsonl"
            return [
                ("summarize goes on", self._summarize_to(out), None, content_of(out)),
                ("summarize --overwrite", self._summarize_to(out, "--overwrite"), None, content_of(out)),
                (
                    "summarize --merge",
                    command("summarize", folder / "whole.jsonl", "--merge", "--output", self.copy / "all"),
                    None,
                    None,
                ),
                (
                    "read as documents",
                    command("summarize", folder, "--checkpoint", self.bases.converted, *FAST),
                    None,
                    None,
                ),
            ]

        return uses

    def _cache(self, folder: Path) -> None:
        made = self.bases.folder / "cache"
        if not made.is_dir():
            self._in_child(self._cached_summary(made))
        shutil.copytree(made, folder)

    def _cached_summary(self, cache: Path) -> Callable[[], int]:
        def call() -> int:
            torch.hub.set_dir(str(cache))
            return hub_call(lambda: hub.lsg_bart_base(self.bases.bart_short).summarize("the cat", max_len_b=3))()

        return call

    def _cache_uses(self) -> Callable[[Path], list[Use]]:
        return lambda folder: [
            ("hub lsg_bart_base, converted before", self._cached_summary(folder), None, printed_lines)
        ]

    def _in_child(self, run: Callable[[], int]) -> None:
        outcome = run_case(Case("sound", "", run), self.canary)
        assert outcome.status == 0, outcome.printed

    def _text(self) -> Path:
        path = self.copy / "documents.txt"
        path.write_text("the cat sat on a mat\nrain fell\n")
        return path

    def _pegasus_data(self) -> Path:
        data = self.bases.folder / "pegasus_data"
        if not data.is_dir():
            flags = ["--tokenizer", self.bases.pegasus_short, "--out", data, "--workers", "1"]
            splits = ["--train", self.bases.documents, "--valid", self.bases.documents]
            self._in_child(command("preprocess", *splits, *flags))
        return data

    # --- documents ---------------------------------------------------------------------------------------------------

    def lines(self) -> Case:
        """Documents."""
        path = self.copy / self.pick("in.jsonl", "in.txt", "in.json", *OTHER_FORMATS)
        shutil.copy(self.bases.documents, path)
        how = self.pick("record", "record", "record", "file", "long", "deep", "empty", "nul", "two")
        if path.name in OTHER_FORMATS:
            how = self.pick("file", "file", "file", "two")
            _write_other_format(path)
        if how == "record":
            how = self.mutator.json_lines(path)
        elif how == "file":
            how = self.mutator.any_file(path)
        elif how == "long":
            text = self.pick("a cat ", "cat", " ", "\u00e9", "\n\n") * 1_700_000
            path.write_text(json.dumps({"document": text, "summary": "s"}) + "\n")
        elif how == "deep":
            path.write_text(self.pick("[", '{"document":') * 100_000 + "\n")
        elif how == "nul":
            path.write_text('{"document": "a\\u0000\\ud800 cat", "summary": "b"}\n')
        elif how == "empty":
            path.write_text(self.pick("", "\n", "\r\n", "\ufeff", "\0", "[]", "{}", "null"))
        inputs = [path, self.bases.documents] if how == "two" else [path]
        out, new = self.copy / "out.jsonl", self.copy / "new"
        checkpoint = ["--checkpoint", self.pick(self.bases.converted, self.bases.converted_pegasus)]
        jsonl = ["--jsonl"] * self.pick(0, 1)
        kinds = [
            ("summarize --output", command("summarize", *inputs, *checkpoint, *jsonl, "--output", out, *FAST), None),
            ("summarize folder", command("summarize", self.copy, *checkpoint, *jsonl, *FAST), None),
            ("preprocess", command("preprocess", "--train", *inputs, "--out", new, "--tokenizer",
                                   self.bases.data / "tokenizer", "--workers", "1"), new),
            ("train a tokenizer", command("preprocess", "--train", *inputs, "--out", new, "--train-tokenizer", "300",
                                          "--workers", "1"), new),
            ("fairseq-interactive", fairseq("interactive", self.bases.data, *TASK, "--path",
                                            self.bases.converted / "model.pt", *ALONE, stdin=path), None),
        ]  # fmt: skip
        label, run, left = self.pick(*kinds)
        if label == "fairseq-interactive" and not path.is_file():
            label, run, left = kinds[0]
        return Case("documents", f"{path.name} {how}; {label}", run, left)

    # --- command lines -----------------------------------------------------------------------------------------------

    def flag(self) -> Case:
        """A value of a flag of an lsg-* command, or a path that is none."""
        out, source = self.copy / "out", self.bases.converted
        tools: dict[str, tuple[argparse.ArgumentParser, list[object]]] = {
            "average": (average.build_parser(), [source / "model.pt", source / "model.pt", "--output", out]),
            "convert": (convert.build_parser(), [self.bases.hf, out]),
            "export": (export.build_parser(), [source, out]),
            "plan": (plan.build_parser(), [self.bases.data, *TINY]),
            "preprocess": (
                preprocess.build_parser(),
                ["--train", self.bases.documents, "--out", out, "--workers", "1"],
            ),
            "summarize": (summarize.build_parser(), [self.bases.documents, "--checkpoint", source, *FAST]),
        }
        name = self.pick(*tools, "summarize")
        parser, arguments = tools[name]
        value = self.pick(self.pick(*NUMBERS), self.pick(*unwritable(self.copy)))
        if self.random.random() < 0.2:
            places = [n for n, argument in enumerate(arguments) if isinstance(argument, Path)]
            place = self.pick(*places)
            label = f"argument {place} is {value!r:.50}"
            arguments = [*arguments[:place], value, *arguments[place + 1 :]]
        else:
            chosen = self.pick(*(a for a in parser._actions if a.option_strings and a.dest != "help" and a.nargs != 0))
            flag = chosen.option_strings[-1]
            if chosen.dest == "workers":
                value = self.pick("0", "-1", "x", "")
            label = f"{flag} {value!r:.50}"
            arguments = [*arguments, f"{flag}={value}"]
        return Case("flag of lsg-*", f"lsg-{name} {label}", command(name, *arguments))

    def fairseq_flag(self) -> Case:
        """A value of a flag of fairseq's commands, of this task or model; lsg-plan takes fairseq-train's."""
        name = self.pick("train", "train", "generate", "validate", "interactive", "plan")
        path = ["--path", self.bases.converted / "model.pt"]
        train = [*TINY, "--max-update", "1", "--save-dir", self.copy / "saved", "--no-epoch-checkpoints"]
        rest = {"train": train, "generate": [*path, *SEARCH, "--gen-subset", "valid"]}
        rest |= {"validate": [*path, "--batch-size", "4"], "interactive": [*path, *ALONE]}
        actions = [a for a in _fairseq_actions("train" if name == "plan" else name) if a.dest not in LEFT_ALONE]
        ours = [a for a in actions if "lsg" in a.option_strings[-1] or "positions" in a.option_strings[-1]]
        chosen = self.pick(*(ours if ours and self.random.random() < 0.3 else actions))
        value = self.pick(
            self.pick(*NUMBERS), self.pick(*NUMBERS), self.pick(*unwritable(self.copy)), self.mutator.code
        )
        flag = chosen.option_strings[-1]
        given = [flag] if chosen.nargs == 0 else [f"{flag}={value}"]
        if name == "plan":
            return Case("flag of fairseq-*", f"lsg-plan {' '.join(given)!r:.100}", command(name, *TINY, *given))
        run = fairseq(name, self.bases.data, *TASK, *rest[name], *given, stdin=self._text())
        return Case("flag of fairseq-*", f"fairseq-{name} {' '.join(given)!r:.100}", run)

    # --- calls of the hub --------------------------------------------------------------------------------------------

    def hub_arguments(self) -> Case:
        """torch.hub.load with another argument, checkpoint or tokenizer."""
        parameters = [*hub.entries.SIGNATURE.parameters]
        entry = self.pick(
            *set(ENTRY_OF.values()), "lsg_bart_base_4096_wcep", "lsg_bart_manpages", "lsg_distilroberta_base"
        )
        name = self.pick(*parameters, "checkpoint", "tokenizer", "nonsense")
        value = self.pick(
            self.pick(*VALUES), self.pick(*unwritable(self.copy)), Path("/"), b"x", object, "a/b", "//", "a:b"
        )
        if name in ("checkpoint", "tokenizer") and self.random.random() < 0.5:
            value = str(self.bases.folder / self.pick(*self.bases.names, "data", "data/tokenizer", "."))
        checkpoint = str(self.bases.folder / self.pick(*[n for n, e in ENTRY_OF.items() if e == entry] or ["hf"]))
        settings = {"checkpoint": checkpoint, name: value}
        label = f"{entry}({name}={value!r:.60})"
        return Case("argument of torch.hub", label, hub_call(lambda: type(hub_load(entry, **settings)).__name__))

    def call(self) -> Case:
        """A call of what the hub gave."""
        value = self.pick(*VALUES, *ODD)
        lsg = self.lsg
        calls: dict[str, Callable[[], object]] = {
            "summarize()": lambda: lsg.summarize(value, max_len_b=3),
            "encode()": lambda: lsg.encode(value),
            "decode()": lambda: lsg.decode(value),
            "collate()": lambda: lsg.collate(value),
            "extract_features()": lambda: lsg.extract_features(value),
            "predict(head)": lambda: lsg.predict(value, lsg.encode("a cat")),
            "predict(tokens)": lambda: lsg.predict("h", value),
            "register_classification_head(name)": lambda: lsg.register_classification_head(value, 2),
            "register_classification_head(classes)": lambda: lsg.register_classification_head("h", value),
            "fill_mask()": lambda: lsg.fill_mask(value),
            "fill_mask(topk=)": lambda: lsg.fill_mask("a <mask>", topk=value),
        }
        sentences = {"collate(length=)": lambda: lsg.collate([torch.tensor([0, 5, 2])], length=value)}
        sentences["encode(sentences)"] = lambda: lsg.encode("a cat", value)
        for name in ("no_separator", "source_lang"):
            sentences[f"encode({name}=)"] = lambda name=name: lsg.encode("a cat", "b", **{name: value})
        for name in ("match_source_len", "source_lang"):
            sentences[f"fill_mask({name}=)"] = lambda name=name: lsg.fill_mask("a <mask>", **{name: value})
        settings = ("beam", "lenpen", "min_len", "max_len_b", "no_repeat_ngram_size", "batch_size", "max_tokens")
        for name in (*settings, "source_lang", "target_lang", "progress"):
            sentences[f"summarize({name}=)"] = lambda name=name: lsg.summarize(
                ["a cat"], **{"max_len_b": 3, name: value}
            )
        head = "register_classification_head(inner_dim=)"
        calls |= sentences | {
            "extract_features(return_all_hiddens=)": lambda: lsg.extract_features(lsg.encode("a"), value),
            "summarize_stream()": lambda: list(lsg.summarize_stream(value, max_len_b=3)),
            head: lambda: lsg.register_classification_head("h", 2, inner_dim=value),
            "encoder: fill_mask(topk=)": lambda: self.encoder.fill_mask("the <mask>", topk=value),
            "encoder: extract_features()": lambda: self.encoder.extract_features(value),
            "encoder: encode()": lambda: self.encoder.encode(value),
        }
        label = self.pick(*calls)
        return Case("call of an interface", f"{label} {value!r:.40}", hub_call(calls[label]))


def _is_ours(name: str) -> bool:
    return name.startswith("converted") or name in ("trained", "encoder")


def _one(uses: list[Use], place: int) -> Use:
    return uses[place % len(uses)]


def _write_other_format(path: Path) -> None:
    """JSON Lines as what the name says."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=3)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    else:
        path.write_text(json.dumps(records))


def _fairseq_actions(name: str) -> list[Any]:
    parsers = {
        "train": options.get_training_parser,
        "generate": options.get_generation_parser,
        "validate": options.get_validation_parser,
        "interactive": options.get_interactive_generation_parser,
    }
    parser = parsers[name](default_task="lsg_summarization")
    if name == "train":
        MODEL_REGISTRY["lsg_bart"].add_args(parser.add_argument_group("model"))
    return [action for action in parser._actions if action.option_strings]
