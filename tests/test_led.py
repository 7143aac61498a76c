"""LED checkpoints as a warm start: everything that is kept is the original's, bit for bit and in its place."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_models import ROBERTA_TOKENS, load_converted
from test_mbart_reference import hide_globals
from torch import nn

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint

# PyPI's torchaudio does not load beside a CPU torch, and transformers 5 then fails to import.
sys.modules.setdefault("torchaudio", None)
import transformers  # noqa: E402

HEADS = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
SIZES = {**HEADS, "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20}
POSITIONS = {"max_encoder_position_embeddings": 600, "max_decoder_position_embeddings": 32}


def write_led(folder: Path, architecture: str = "LEDForConditionalGeneration", **config: Any) -> nn.Module:
    """A tiny LED with lively weights, a window wider than what the tests read, and BART's tokenizer files."""
    torch.manual_seed(0)
    settings = {**SIZES, **POSITIONS, "vocab_size": len(ROBERTA_TOKENS), "attention_window": 64, **config}
    model = getattr(transformers, architecture)(transformers.LEDConfig(**settings)).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(ROBERTA_TOKENS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return model


def in_fairseq(name: str) -> str:
    """fairseq's name of a LED's weight, written out by hand."""
    for led, ours in (
        (".self_attn.longformer_self_attn.query.", ".self_attn.q_proj."),
        (".self_attn.longformer_self_attn.key.", ".self_attn.k_proj."),
        (".self_attn.longformer_self_attn.value.", ".self_attn.v_proj."),
        (".self_attn.output.", ".self_attn.out_proj."),
        ("led.", ""),
    ):
        name = name.replace(led, ours)
    return name


@pytest.mark.parametrize("architecture", ["LEDForConditionalGeneration", "LEDModel"])
def test_what_is_kept_is_bit_for_bit_the_originals(architecture: str, tmp_path: Path) -> None:
    led = write_led(tmp_path / "led", architecture)
    plan = convert_checkpoint(tmp_path / "led", tmp_path / "out")
    assert any("train the model further before you use it" in line for line in plan.lines())
    kept = load_converted(tmp_path / "out")[0].state_dict()
    compared = set()
    for name, tensor in led.named_parameters():
        key = in_fairseq(name)
        if "_global." in name:
            assert key not in kept
        elif "embed_positions" in name:
            assert torch.equal(kept[key][2 : 2 + len(tensor)], tensor)
        elif "shared" in name:
            assert torch.equal(kept["encoder.embed_tokens.weight"], tensor)
            key = "encoder.embed_tokens.weight"
        else:
            assert torch.equal(kept[key], tensor), name
        compared.add(key)
    tied = {"decoder.embed_tokens.weight", "decoder.output_projection.weight", "decoder.final_logits_bias"}
    made = {"encoder.global_embeddings.weight", "encoder.version", "decoder.version"}
    assert kept.keys() - compared == tied | made


@torch.no_grad()
def test_a_text_within_the_window_is_read_as_before(tmp_path: Path) -> None:
    """Without global tokens on either side and with full attention: positions are where they were."""
    led = write_led(tmp_path / "led")
    convert_checkpoint(tmp_path / "led", tmp_path / "out", lsg={"attention": "full"})
    model, rows = load_converted(tmp_path / "out")
    hide_globals(model)
    ids = torch.randint(4, 20, (2, 24), generator=torch.Generator().manual_seed(1))
    ids[1, 15:] = 1
    mask, previous = ids.ne(1), torch.randint(4, 20, (2, 6), generator=torch.Generator().manual_seed(2))
    expected = led(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=previous)
    encoded = model.encoder(rows[ids])
    logits, _ = model.decoder(rows[previous], encoder_out=encoded)
    found = encoded["encoder_out"][0].transpose(0, 1)[:, -24:]
    assert (found - expected.encoder_last_hidden_state[:, :24])[mask].abs().max() <= 2e-5
    assert (logits[..., rows] - expected.logits).abs().max() <= 1e-4


def test_it_is_a_bart_from_then_on(tmp_path: Path) -> None:
    """Exported, it is read again as the model that it has become."""
    write_led(tmp_path / "led")
    convert_checkpoint(tmp_path / "led", tmp_path / "out", 1024)
    export_checkpoint(tmp_path / "out", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["model_type"], config["max_position_embeddings"]) == ("bart", 1024)
    assert not {*POSITIONS, "attention_window"} & config.keys()
    convert_checkpoint(tmp_path / "hf", tmp_path / "again")
    one, other = (load_converted(tmp_path / name)[0].state_dict() for name in ("out", "again"))
    assert all(torch.equal(one[key], other[key]) for key in one)
