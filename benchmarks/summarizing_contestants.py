"""One summarizer in a process of its own: summarises all documents once for each line "run" on standard input.

Started by summarizing.py, each in its own environment. Prints a JSON object a line: first the memory of the process
with the model built, then of each run its seconds, its peak memory and the output ids of the first documents.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import torch

from benchmarks.contestant_sizes import BEAM, DECODER_LAYERS, FFN, VOCABULARY, WIDTH
from benchmarks.process_memory import memory_mib, reset_peak
from benchmarks.summarizing_model import LONGEST, documents, padded

# Documents in a batch where they are taken as they come.
BATCH = 8
SHOWN = 4
Ids = list[list[int]]
Summarize = Callable[[list[torch.Tensor]], Ids]


def in_batches(sources: list[torch.Tensor], summarize: Summarize) -> Ids:
    """In the order in which they come."""
    return [ids for i in range(0, len(sources), BATCH) for ids in summarize(sources[i : i + BATCH])]


def build_ours(folder: Path, new_tokens: int, dtype: str, as_they_come: bool = False) -> Summarize:
    """This project's generator, in its own batches or as documents come."""
    from lsg_fairseq.generation import LSGSequenceGenerator

    model = our_model(folder).to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    more = {"as_int8": True} if dtype == "int8" else {}
    limits = {"beam_size": BEAM, "min_len": new_tokens - 1, "max_len_a": 0, "max_len_b": new_tokens - 1}
    generator = LSGSequenceGenerator([model], model.decoder.dictionary, forced_last_token=2, **limits, **more)

    def summarize(batch: list[torch.Tensor]) -> Ids:
        inputs = {"src_tokens": padded(batch), "src_lengths": torch.tensor([len(ids) for ids in batch])}
        return [found[0]["tokens"].tolist() for found in generator.generate([model], {"net_input": inputs})]

    if as_they_come:
        return lambda sources: in_batches(sources, summarize)
    return lambda sources: in_our_batches(sources, summarize)


def in_our_batches(sources: list[torch.Tensor], summarize: Summarize) -> Ids:
    """In the batches of lsg-summarize, and back in order."""
    from lsg_fairseq.hub.batches import BatchOptions, batches_by_length

    found: Ids = [[] for _ in sources]
    for places in batches_by_length([len(ids) for ids in sources], BatchOptions()):
        for place, ids in zip(places, summarize([sources[i] for i in places]), strict=True):
            found[place] = ids
    return found


def our_model(folder: Path) -> torch.nn.Module:
    """The shared weights, converted."""
    from benchmarks import our_models
    from lsg_fairseq.huggingface.config import read_config
    from lsg_fairseq.huggingface.read_folder import read_hf_folder
    from lsg_fairseq.huggingface.seq2seq_weights import convert_from_hf

    checkpoint = read_hf_folder(folder / "lsg")
    spec, _ = read_config(checkpoint.config)
    limits = {"max_source_positions": spec.max_source_positions, "max_target_positions": spec.max_target_positions}
    # fairseq's dictionary has its four specials besides.
    model = our_models._build(VOCABULARY - 4, DECODER_LAYERS, **limits)
    model.load_state_dict(convert_from_hf(dict(checkpoint.tensors), spec))
    return model.eval()


def build_public_lsg(folder: Path, new_tokens: int, dtype: str) -> Summarize:
    """transformers' beam search with the public LSG-BART, in batches as documents come."""
    from lsg_converter.bart.modeling_lsg_bart import LSGBartForConditionalGeneration

    model = LSGBartForConditionalGeneration.from_pretrained(folder / "lsg", torch_dtype=getattr(torch, dtype)).eval()
    limits = {"num_beams": BEAM, "min_new_tokens": new_tokens - 1, "max_new_tokens": new_tokens}

    def summarize(batch: list[torch.Tensor]) -> Ids:
        ids = padded(batch)
        # Its output starts with the decoder's start.
        return model.generate(ids, attention_mask=ids.ne(1).long(), early_stopping=True, **limits)[:, 1:].tolist()

    return lambda sources: in_batches(sources, summarize)


def build_ctranslate2(folder: Path, new_tokens: int, dtype: str) -> Summarize:
    """CTranslate2 with BART's full attention; it sorts by length and makes batches itself."""
    import ctranslate2

    words = json.loads((folder / "bart" / "words.json").read_text())
    rows = {word: i for i, word in enumerate(words)}
    translator = ctranslate2.Translator(str(folder / dtype), compute_type=dtype, inter_threads=1, intra_threads=2)
    limits = {"beam_size": BEAM, "min_decoding_length": new_tokens - 1, "max_decoding_length": new_tokens - 1}

    def summarize(sources: list[torch.Tensor]) -> Ids:
        texts = [[words[i] for i in ids.tolist()] for ids in sources]
        results = translator.translate_batch(texts, max_batch_size=BATCH, **limits, max_input_length=0)
        return [[rows[word] for word in result.hypotheses[0]] for result in results]

    return summarize


def build_step(folder: Path, new_tokens: int, dtype: str) -> Summarize:
    """The median step of a generation times their number: without encoder, packing, and projections of sources."""
    from lsg_fairseq.generation import LSGSequenceGenerator

    model = our_model(folder).to(getattr(torch, dtype))
    limits = {"beam_size": BEAM, "min_len": new_tokens - 1, "max_len_a": 0, "max_len_b": new_tokens - 1}
    generator = LSGSequenceGenerator([model], model.decoder.dictionary, **limits)
    encoded: list[dict] = []
    starts: list[float] = []
    model.decoder.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter()))

    def summarize(sources: list[torch.Tensor]) -> Ids:
        ids = padded(sources)
        if not encoded:
            encoded.append(model.encoder(ids))
            model.encoder.forward_torchscript = lambda net_input: encoded[0]
        inputs = {"src_tokens": ids, "src_lengths": ids.ne(1).sum(1)}
        starts.clear()
        found = generator.generate([model], {"net_input": inputs})
        # The first step projects the sources.
        summarize.seconds = new_tokens * statistics.median(end - start for start, end in pairwise(starts[1:]))
        return [hypotheses[0]["tokens"].tolist() for hypotheses in found]

    return summarize


def build_reading(folder: Path, new_tokens: int, dtype: str) -> Summarize:
    """Reading, once for each new token, what a step has to: the decoder's weights, and keys and values of sources."""
    linears = DECODER_LAYERS * (6 * WIDTH * WIDTH + 2 * WIDTH * FFN) + VOCABULARY * WIDTH
    size = getattr(torch, dtype).itemsize / torch.float32.itemsize

    def read(sources: list[torch.Tensor]) -> Ids:
        keys = 2 * DECODER_LAYERS * len(sources) * (LONGEST + 1) * WIDTH
        memory = torch.ones(int((linears + keys) * size))
        start = time.perf_counter()
        for _ in range(new_tokens):
            memory.sum()
        read.seconds = time.perf_counter() - start
        return []

    return read


BUILDERS: dict[str, Callable[..., Summarize]] = {
    "lsg_fairseq": build_ours,
    "as_they_come": lambda *args: build_ours(*args, as_they_come=True),
    "public_lsg": build_public_lsg,
    "ctranslate2": build_ctranslate2,
    "step": build_step,
    "reading": build_reading,
}


def answers(summarize: Summarize, sources: list[torch.Tensor]) -> Iterator[dict[str, object]]:
    """What each run took and found; any line but "run" warms up on a batch."""
    for line in sys.stdin:
        started = time.perf_counter()
        with torch.no_grad():
            found = summarize(sources if line == "run\n" else sources[:BATCH])
        seconds = getattr(summarize, "seconds", time.perf_counter() - started)
        yield {"seconds": seconds, "peak_mib": memory_mib("VmHWM"), "ids": found[:SHOWN]}


def main() -> None:
    """Build, then answer each line of standard input with a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=BUILDERS)
    parser.add_argument("folder", type=Path, help="what summarizing_model.py wrote")
    parser.add_argument("dtype")
    parser.add_argument("number", type=int, help="of documents")
    parser.add_argument("kind", choices=["long", "mixed"])
    parser.add_argument("new_tokens", type=int)
    args = parser.parse_args()
    torch.set_num_threads(2)
    summarize = BUILDERS[args.name](args.folder, args.new_tokens, args.dtype)
    sources = documents(args.number, args.kind == "mixed")
    reset_peak()
    print(json.dumps({"built_mib": memory_mib("VmRSS")}), flush=True)
    for answer in answers(summarize, sources):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
