"""What may be wrong with a file: each function changes one in place and says how."""

from __future__ import annotations

import copy
import json
import pickle
import random
import struct
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch

from lsg_fairseq.compat.loading import load_checkpoint_file

# What a value of JSON or an argument is replaced by.
VALUES = [
    *(None, [], {}, "", "x", " ", -1, 0, 1, 3, 2**31, 2**63, 10**9, 10**30, 10**400, 1e308, -1e308, 0.5, True, False),
    *(float("nan"), float("inf"), "\ud800", "a\0b", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", [[]], ["x"]),
    *({"x": 1}, [None], {"": {}}, "x" * 100_000, [0] * 5000, "<s>", "</s>", "1", "1e9", "None", "nan"),
]
TEXT_SUFFIXES = (".txt", ".jsonl")


DAMAGE = (
    "flip flip cut cut zeros appended pickle empty text folder gone random twice bom utf-16 latin-1 nuls crlf".split()
)
DAMAGE += ["loop", "device", "half", "other"]


class Evil:
    """A pickle that runs code."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self.code,)


class Mutator:
    """Mutations drawn from a seeded generator; `code` is Python that leaves a trace where it runs."""

    def __init__(self, dice: random.Random, code: str) -> None:
        self.random, self.code = dice, code

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def change(self, path: Path) -> str:
        """Change a file as its kind suggests, or in one of the ways that any file can be damaged."""
        kinds = {
            ".json": self.json_file,
            ".txt": self.text_file,
            ".jsonl": self.json_lines,
            ".journal": self.json_lines,
            ".pt": lambda p: self.pick(self.argument, self.argument, self.argument, self.tensor, self.part)(p),
            ".bin": self.tensor if path.name.startswith("pytorch_model") else self.any_file,
            ".safetensors": lambda p: self.pick(self.tensor, self.tensor, self.header)(p),
            ".idx": self.index,
        }
        own = kinds.get(path.suffix, self.any_file)
        return (own if self.random.random() < 0.7 else self.any_file)(path)

    # --- any file ----------------------------------------------------------------------------------------------------

    def any_file(self, path: Path) -> str:
        """Damage that needs no knowledge of the format."""
        content = bytearray(path.read_bytes())
        how = self.pick(*DAMAGE)
        place = self.random.randrange(max(len(content), 1))
        if how in ("folder", "gone", "loop", "device"):
            path.unlink()
            if how == "folder":
                path.mkdir()
            elif how != "gone":
                path.symlink_to(path.name if how == "loop" else "/dev/zero")
            return f"is {how}"
        if how == "flip":
            for _ in range(self.pick(1, 8, 64)):
                if content:
                    content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        elif how == "zeros":
            content[place : place + 512] = bytes(len(content[place : place + 512]))
        elif how == "nuls":
            content[place:place] = b"\0" * 40
        else:
            content = self._rewritten(bytes(content), how, place, path)
        path.write_bytes(content)
        return f"{how} at {place}"

    def _rewritten(self, content: bytes, how: str, place: int, path: Path) -> bytes:
        others = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
        return {
            "cut": lambda: content[:place],
            "half": lambda: content[: len(content) // 2],
            "appended": lambda: content + self.random.randbytes(100),
            "pickle": lambda: pickle.dumps(Evil(self.code)),
            "empty": lambda: b"",
            "text": lambda: Path("/etc/passwd").read_bytes(),
            "random": lambda: self.random.randbytes(3000),
            "twice": lambda: content * 2,
            "bom": lambda: b"\xef\xbb\xbf" + content,
            "utf-16": lambda: b"\xff\xfe" + content[:5000].decode("latin-1").encode("utf-16-le"),
            "latin-1": lambda: content[:place] + b"\xe9\xff" + content[place:],
            "crlf": lambda: content.replace(b"\n", b"\r\n"),
            "other": lambda: self.pick(*others).read_bytes() if others else b"{}",
        }[how]()

    # --- JSON --------------------------------------------------------------------------------------------------------

    def json_file(self, path: Path) -> str:
        """A value of another type or size somewhere, or something that is no such JSON."""
        content = json.loads(path.read_text())
        raw = {"deep": "[" * 100_000, "deep object": '{"a":' * 50_000, "NaN": "NaN", "lines": '{"a": 1}\n{"b": 2}\n'}
        how = self.pick("value", "value", "value", "value", "lost", "whole", "moved", "more", "near", "doubled", *raw)
        if how in raw:
            path.write_text(raw[how])
            return how
        changed, label = self._changed(content, how)
        text = json.dumps(changed)
        if how == "doubled":
            text = text[:-1] + ", " + text[1:] if isinstance(content, dict) and content else "[" + text
        path.write_text(text)
        return label

    def _changed(self, content: Any, how: str) -> tuple[Any, str]:
        value = self.pick(*VALUES, self.code)
        if how == "whole" or not isinstance(content, dict | list) or not content:
            return value, f"is {value!r:.40}"
        holder, key = self._place(content)
        if how == "lost":
            del holder[key]
        elif how == "moved":
            other, name = self._place(content)
            holder[key], other[name] = other[name], holder[key]
        elif how == "more" and isinstance(holder, dict):
            holder[self.pick("x", "", str(key) + "_", "auto_map", "architectures", "\ud800")] = copy.deepcopy(value)
        elif how == "near":
            value = holder[key] = self._near(holder[key])
        else:
            holder[key] = copy.deepcopy(value)
        return content, f"{key!r:.40} {how} {value!r:.40}"

    def _place(self, content: Any) -> tuple[Any, Any]:
        """(holder, key) of a value somewhere in JSON: a walk, as a vocabulary would outnumber all else."""
        while True:
            key = self.pick(*(content if isinstance(content, dict) else range(len(content))))
            value = content[key]
            if not isinstance(value, dict | list) or not value or self.random.random() < 0.4:
                return content, key
            content = value

    def _near(self, value: Any) -> Any:
        """A value that is nearly the same: one more, as text, in a list."""
        if isinstance(value, bool):
            return self.pick(not value, int(value), str(value).lower())
        if isinstance(value, int | float):
            return self.pick(value + 1, value - 1, -value, value * 2, value * 1000, value + 0.5, str(value), [value])
        if isinstance(value, list):
            return self.pick(value * 2, value[1:], value * 1000, dict(enumerate(map(str, value))))
        return self.pick([value], str(value) + "x", {"x": value}, value * 3 if isinstance(value, str) else None)

    def json_lines(self, path: Path) -> str:
        lines = path.read_text().splitlines() or [""]
        place = self.random.randrange(len(lines))
        try:
            record = json.loads(lines[place])
        except ValueError:
            record = {}
        how = self.pick("value", "value", "whole", "raw", "no newline", "blank", "twice", "gone")
        label = ""
        if how == "value":
            record, label = self._changed(record, self.pick("value", "lost", "near", "more"))
            lines[place] = json.dumps(record)
        elif how == "whole":
            lines[place] = json.dumps(self.pick([record], *VALUES))
        elif how == "raw":
            lines[place] = self.pick("{nope", "[" * 100_000, '{"document": "a\\u0000\\ud800 cat"}', "\0" * 200, "\x85")
        elif how == "blank":
            lines[place:place] = ["", "  "]
        elif how == "twice":
            lines += lines
        elif how == "gone":
            del lines[place]
        path.write_text("\n".join(lines) + ("" if how == "no newline" else "\n"))
        return f"line {place} {how} {label}"

    # --- text --------------------------------------------------------------------------------------------------------

    def text_file(self, path: Path) -> str:
        lines = path.read_bytes().splitlines(keepends=True) or [b"\n"]
        how = self.pick(
            "swap", "drop", "double", "garble", "cut", "reverse", "column", "number", "long", "blank", "flag"
        )
        place = self.random.randrange(len(lines))
        if how == "swap":
            other = self.random.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        elif how == "drop":
            del lines[place]
        elif how == "double":
            lines.insert(place, lines[place])
        elif how == "cut":
            lines = lines[:place]
        elif how == "reverse":
            lines.reverse()
        else:
            lines[place] = self._line(lines[place], how)
        path.write_bytes(b"".join(lines))
        return f"line {place} {how}"

    def _line(self, line: bytes, how: str) -> bytes:
        number = self.pick(b"-1", b"x", b"99999999999999999999", b"nan", b"1.5", b"")
        return {
            "garble": self.random.randbytes(20) + b"\n",
            "column": line.rstrip(b"\n") + b" 1 x\n",
            "number": line.rstrip(b"\n").rpartition(b" ")[0] + b" " + number + b"\n",
            "long": b"x" * 1_000_000 + b" 1\n",
            "blank": b"\n",
            "flag": line.rstrip(b"\n") + b" #fairseq:overwrite\n",
        }[how]

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def argument(self, path: Path) -> str:
        """An argument of a checkpoint has another value."""
        state = load_checkpoint_file(str(path))
        if state.get("cfg") is None:
            group, held = "args", state.get("args")
        else:
            group = self.pick(
                "model", "model", "model", "task", "checkpoint", "criterion", "generation", "dataset", "bpe"
            )
            held = state["cfg"].get(group)
        names = vars(held) if isinstance(held, Namespace) else held if isinstance(held, dict) else {}
        name = self.pick(*sorted(names), "adaptive_softmax_cutoff", "_name", "arch", "encoder_xformers_att_config")
        value = self.pick(*VALUES, self.code, self.code, f"[{self.code}]", "fconv", "transformer", "lsg_roberta_base",
                          self._near(names.get(name)))  # fmt: skip
        if self.random.random() < 0.05 and "cfg" in state:
            state["cfg"] = self.pick(*VALUES, {**state["cfg"], group: value})
        elif isinstance(held, Namespace):
            setattr(held, name, value)
        elif isinstance(held, dict):
            held[name] = value
        torch.save(state, path)
        return f"{group}.{name} = {value!r:.60}"

    def part(self, path: Path) -> str:
        """A part of a checkpoint beside weights and arguments is another, or is missing."""
        state = load_checkpoint_file(str(path))
        name = self.pick(*sorted(state), "args", "x")
        value = self.pick(*VALUES, torch.zeros(2), Namespace(x=1), {1: 2}, [torch.zeros(1)])
        if self.random.random() < 0.3:
            state.pop(name, None)
            value = "lost"
        elif isinstance(state.get(name), dict) and self.random.random() < 0.5:
            key = self.pick(*state[name], "x")
            state[name] = {**state[name], key: value}
            name = f"{name}.{key}"
        elif isinstance(state.get(name), list) and state[name] and self.random.random() < 0.7:
            state[name] = self.pick([], [value], [{**state[name][0], self.pick(*state[name][0]): value}])
        else:
            state[name] = value
        torch.save(state if self.random.random() < 0.95 else value, path)
        return f"{name!s:.60} = {value!r:.60}"

    def tensor(self, path: Path) -> str:
        """A tensor of another kind, size or content."""
        is_safe = path.suffix == ".safetensors"
        if is_safe:
            from safetensors.torch import load_file, save_file

            state = weights = load_file(path)
        elif path.suffix == ".bin":
            state = weights = dict(torch.load(path, weights_only=True))
        else:
            state = load_checkpoint_file(str(path))
            weights = state["model"] = dict(state["model"])
        name = self.pick(*sorted(weights))
        kinds = ("NaN", "inf", "int", "bool", "complex", "sparse", "shape", "lost", "extra", "huge", "name", "half")
        how = self.pick(*kinds, "expanded", "meta", "value", "float64", "quantised", "grown", "empty", "bfloat16")
        if is_safe and how in ("sparse", "expanded", "meta", "value", "quantised"):
            how = "NaN"
        self._mutate_tensor(weights, name, how)
        if is_safe:
            save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path, {"format": "pt"})
        else:
            torch.save(state, path)
        return f"{name} {how}"

    def _mutate_tensor(self, weights: dict[Any, Any], name: str, how: str) -> None:
        tensor = weights[name].clone().float()
        kinds = {"int": torch.int64, "bool": torch.bool, "complex": torch.complex64, "half": torch.float16}
        kinds |= {"float64": torch.float64, "bfloat16": torch.bfloat16}
        made = {
            "sparse": tensor.to_sparse,
            "shape": lambda: self.pick(tensor[..., :-1], tensor[None], tensor.reshape(-1), tensor[:0]).contiguous(),
            "huge": lambda: tensor * 1e30,
            "expanded": lambda: torch.zeros(1).expand(*([10**5] * tensor.dim())),
            "meta": lambda: tensor.to("meta"),
            "value": lambda: self.pick(None, 1, "x", [1.0], {"a": tensor}),
            "quantised": lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
            "grown": lambda: torch.cat([tensor] * 3).contiguous(),
        }
        if how in kinds:
            weights[name] = tensor.to(kinds[how])
        elif how in ("NaN", "inf"):
            tensor.view(-1)[0] = float(how)
            weights[name] = tensor
        elif how in made:
            weights[name] = made[how]()
        elif how == "lost":
            del weights[name]
        elif how == "empty":
            weights.clear()
        elif how == "extra":
            weights.update({f"{name}.{i}": torch.zeros(1) for i in range(3000)})
        else:
            new = self.pick(name + "x", "", "encoder.layers.99.fc1.weight", name.replace(".0.", ".7."))
            weights[new] = weights.pop(name)

    def header(self, path: Path) -> str:
        """The JSON that a safetensors file begins with."""
        content = path.read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        header, label = self._changed(json.loads(content[8 : 8 + size]), self.pick("value", "near", "lost", "moved"))
        text = json.dumps(header).encode()
        stated = self.pick(len(text), len(text), len(text), 0, 2**40, 2**63)
        path.write_bytes(struct.pack("<Q", stated) + text + content[8 + size :])
        return f"header {label}"

    def index(self, path: Path) -> str:
        """A field of fairseq's .idx, or ids that no dictionary has in its .bin."""
        content = bytearray(path.read_bytes())
        how = self.pick("version", "code", "count", "length", "start", "ids", "negative ids")
        if how in ("ids", "negative ids"):
            data = path.with_suffix(".bin")
            data.write_bytes((b"\xff\x7f" if how == "ids" else b"\xff\xff") * (data.stat().st_size // 2))
            return how
        places = {
            "version": (9, "<Q"),
            "code": (17, "<B"),
            "count": (18, "<Q"),
            "length": (26, "<i"),
            "start": (-8, "<q"),
        }
        place, kind = places[how]
        value = self.pick(
            0, 1, 9, 200, *([] if kind == "<B" else [2**30, 2**31 - 1]), *([-5] if kind in ("<i", "<q") else [])
        )
        struct.pack_into(kind, content, len(content) + place if place < 0 else place, value)
        path.write_bytes(content)
        return f"{how} = {value}"


def unwritable(folder: Path) -> list[str]:
    """Paths that a command cannot read or write as a file: what a flag may be given by mistake."""
    (folder / "a folder").mkdir(exist_ok=True)
    if not (folder / "loop").is_symlink():
        (folder / "loop").symlink_to("loop")
    (folder / "a file").write_text("x\n")
    (folder / "nothing").touch()
    names = [str(folder / name) for name in ("missing", "a folder", "loop", "a file", "nothing", "a file/x", "no/such")]
    return [
        *names,
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/proc/self/mem",
        "/etc/passwd",
        "",
        ".",
        "/",
        "x" * 300,
        "a\0b",
    ]
