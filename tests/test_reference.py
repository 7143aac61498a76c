"""Every case of the reference checkpoints: outputs of the public implementation, reproduced in fp32."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from live_models import build_lsg_model, fairseq_ids, load_arrays
from reference_checkpoints import REFERENCE, differing, open_model
from torch import Tensor, nn

from lsg_fairseq.generation import LSGSequenceGenerator
from lsg_fairseq.huggingface.seq2seq_weights import convert_from_hf, convert_to_hf
from lsg_fairseq.modules import sparse_tokens
from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, embedding_rows, load_tokenizer, symbol_from_token
from lsg_fairseq.weights.position_tables import lengthen

pytestmark = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference checkpoints in {REFERENCE}")

CASES = json.loads((REFERENCE / "manifest.json").read_text())["cases"] if REFERENCE.is_dir() else []
ENCODER_TOLERANCE, LOGITS_TOLERANCE = 2e-5, 1e-4


def cases(*kinds: str) -> Any:
    chosen = [case for case in CASES if case["kind"] in kinds]
    return pytest.mark.parametrize("case", chosen, ids=[case["name"] for case in chosen])


@lru_cache(maxsize=4)
def _model(name: str, overrides: str, length: int | None) -> tuple[nn.Module, Tensor]:
    return build_lsg_model(name, json.loads(overrides), length)


def model_of(case: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    """The model of a case, and the dictionary row of each Hugging Face id."""
    return _model(case["model"], json.dumps(case["overrides"] or {}), case.get("max_source_positions"))


def check_outputs(case: dict[str, Any], model: nn.Module, rows: Tensor) -> None:
    """Compare the encoder's global and real rows, and all logits in Hugging Face's order of columns."""
    arrays = load_arrays(case)
    source, previous = (fairseq_ids(rows, arrays[name]) for name in ("input_ids", "decoder_input_ids"))
    real = torch.from_numpy(arrays["attention_mask"]).bool()
    source = source.masked_fill(~real, 1)
    with torch.no_grad():
        encoded = model.encoder(source)
        logits, _ = model.decoder(previous, encoder_out=encoded)
    expected = torch.from_numpy(arrays["encoder_last_hidden_state"])
    num_globals = expected.size(1) - source.size(1)
    kept = nn.functional.pad(real, (num_globals, 0), value=True)
    difference = (encoded["encoder_out"][0].transpose(0, 1) - expected)[kept].abs().max()
    assert difference <= ENCODER_TOLERANCE
    if "logits" in case.get("compare", ["logits"]):
        assert (logits[..., rows] - torch.from_numpy(arrays["logits"])).abs().max() <= LOGITS_TOLERANCE


@cases("forward", "convert", "beam3")
def test_outputs(case: dict[str, Any]) -> None:
    check_outputs(case, *model_of(case))


@cases("lsh")
def test_outputs_with_the_stored_projections(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = load_arrays(case)
    stored = iter([torch.from_numpy(arrays[f"randn_{i}"])[0, :, 0] for i in range(count_projections(arrays))])
    monkeypatch.setattr(sparse_tokens, "draw_projections", lambda *_: next(stored))
    check_outputs(case, *model_of(case))
    assert next(stored, None) is None


def count_projections(arrays: dict[str, np.ndarray]) -> int:
    return sum(name.startswith("randn_") for name in arrays)


@cases("convert")
def test_converted_tensors(case: dict[str, Any]) -> None:
    checkpoint, spec, rows = open_model(case["model"])
    tokenizer = load_tokenizer(checkpoint.folder)
    mask_row = build_dictionary(tokenizer).index(symbol_from_token(tokenizer.mask))
    length = case["max_source_positions"]
    state, spec = lengthen(convert_from_hf(checkpoint.tensors, spec, rows), spec, length, length, mask_row)
    expected, _, _ = open_model(case["converted"])
    assert differing(convert_to_hf(state, spec, rows), dict(expected.tensors)) == []


@cases("beam3")
@pytest.mark.parametrize("beam", [1, 3])
def test_generated_tokens(case: dict[str, Any], beam: int) -> None:
    """Beam 3 as stored; a beam of 1 is compared with the arg max of the teacher-forced logits."""
    model, rows = model_of(case)
    arrays = load_arrays(case)
    source = fairseq_ids(rows, arrays["input_ids"]).masked_fill(~torch.from_numpy(arrays["attention_mask"]).bool(), 1)
    start = "<s>" if case["arch"] == "pegasus" else "</s>"
    limits = {"min_len": case["beam"]["min_len"], "max_len_b": case["beam"]["max_len"]}
    generator = LSGSequenceGenerator(
        [model], model.decoder.dictionary, start, forced_last_token=2, beam_size=beam, **limits
    )
    found = [best["tokens"] for best, *_ in generator.generate([model], {"net_input": {"src_tokens": source}})]
    if beam == 3:
        assert [tokens.tolist() for tokens in found] == [rows[torch.tensor(ids)].tolist() for ids in case["beam3"]]
        return
    for index, tokens in enumerate(found):
        previous = torch.cat([torch.tensor([model.decoder.dictionary.index(start)]), tokens[:-1]])
        with torch.no_grad():
            logits, _ = model(source[index : index + 1], None, previous[None])
        logits[0, : limits["min_len"], 2] = -torch.inf
        logits[..., 1] = -torch.inf
        assert logits[0].argmax(-1)[: limits["max_len_b"]].tolist() == tokens[: limits["max_len_b"]].tolist()


@pytest.mark.parametrize("case", [c for c in CASES if "text" in c], ids=lambda case: case["name"])
def test_tokenizer(case: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(REFERENCE / "models" / case["model"])
    rows = embedding_rows(tokenizer, build_dictionary(tokenizer))
    assert torch.equal(rows, model_of(case)[1])
    ids = {token: index for index, token in enumerate(tokenizer.tokens)}
    for text, expected, length in zip(case["text"], load_arrays(case)["input_ids"], case["lengths"], strict=True):
        bos = ["<s>"] if tokenizer.sequence_format.source_bos else []
        assert [ids[token] for token in (*bos, *tokenizer.encode(text), "</s>")] == expected[:length].tolist()
