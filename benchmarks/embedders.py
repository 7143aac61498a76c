"""One way to embed papers, in a process of its own: `embedders.py SPEC PAPERS OUT`, started by extrapolation.py.

SPEC is JSON: a "kind", its "folder", and what the kind needs. An embedding is the mean of the last hidden states over
a text's tokens, `[CLS]` and `[SEP]` included, as sentence-transformers makes it, with length 1.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.process_memory import memory_mib, reset_peak

Embed = Callable[[str], torch.Tensor]
CLS, SEP = "[CLS]", "[SEP]"


def bert(folder: str, tokens: int, chunks: int = 1) -> Embed:
    """The short model itself: a text's first tokens, or the mean over its first `chunks` pieces of that many."""
    import lsg_fairseq  # noqa: F401, I001  first: it makes a torchaudio that does not load harmless
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    encode = tokenizer(folder)

    def embed(text: str) -> torch.Tensor:
        size = tokens - 2
        ids = encode(text)[: size * chunks]
        pieces = [ids[start : start + size] for start in range(0, len(ids), size)]
        return torch.stack([mean_state(model, with_specials(folder, piece)) for piece in pieces]).mean(0)

    return embed


def public_lsg(folder: str, tokens: int, **settings: object) -> Embed:
    """lsg-converter 0.1.9's conversion of the same weights, in the peers' environment."""
    from lsg_converter import LSGConverter

    model, _ = LSGConverter(max_sequence_length=tokens).convert_from_pretrained(folder, **settings)
    model.eval()
    encode = tokenizer(folder)
    return lambda text: mean_state(model, with_specials(folder, encode(text)[: tokens - 2]))


def lsg_fairseq(folder: str, tokens: int, **settings: object) -> Embed:
    """A folder that lsg-convert wrote, with settings of its own."""
    from lsg_fairseq.hub import lsg_bert_base

    hub = lsg_bert_base(checkpoint=folder, **settings)
    eos = hub.task.source_dictionary.eos()

    def embed(text: str) -> torch.Tensor:
        ids = hub.encode(text)
        if len(ids) > tokens:
            ids = torch.cat([ids[: tokens - 1], ids.new_tensor([eos])])
        return hub.extract_features(ids)[0].mean(0)

    return embed


KINDS = {"bert": bert, "public_lsg": public_lsg, "lsg_fairseq": lsg_fairseq}


def tokenizer(folder: str) -> Callable[[str], list[int]]:
    """The words of a text as ids, without specials; tokenizer.json itself cuts at 128."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(f"{folder}/tokenizer.json")
    made.no_truncation()
    made.no_padding()
    return lambda text: made.encode(text, add_special_tokens=False).ids


def with_specials(folder: str, ids: list[int]) -> torch.Tensor:
    """(1,T) ids with `[CLS]` in front and `[SEP]` behind."""
    vocabulary = Path(folder, "vocab.txt").read_text().splitlines()
    return torch.tensor([[vocabulary.index(CLS), *ids, vocabulary.index(SEP)]])


def mean_state(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """(C,)"""
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0)


def main() -> None:
    """Embed all documents, timed, then all queries; write both beside what they cost."""
    spec, papers, out = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    rows = [json.loads(line) for line in papers.read_text().splitlines()]
    torch.set_num_threads(2)
    settings = {name: value for name, value in spec.items() if name != "kind"}
    embed = KINDS[spec["kind"]](**settings)
    with torch.inference_mode():
        embed(rows[0]["document"])  # a warm-up
        reset_peak()
        built, seconds, documents = memory_mib("VmRSS"), [], []
        for row in rows:
            started = time.perf_counter()
            documents.append(embed(row["document"]))
            seconds.append(time.perf_counter() - started)
        cost = {"seconds": float(np.median(seconds)), "extra_mib": memory_mib("VmHWM") - built}
        queries = {f"{i}:{kind}": embed(text) for i, row in enumerate(rows) for kind, text in row["queries"].items()}
    vectors = {"documents": torch.stack(documents), "queries": torch.stack(list(queries.values()))}
    arrays = {name: torch.nn.functional.normalize(x, dim=-1).float().numpy() for name, x in vectors.items()}
    aside = out.with_suffix(".partial.npz")
    np.savez(aside, **arrays, names=np.array(list(queries)), cost=np.array(json.dumps(cost)))
    aside.rename(out)


if __name__ == "__main__":
    main()
