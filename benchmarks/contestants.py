"""One measured model in a process of its own: builds it, then runs it once for each line on standard input.

Started by speed.py, in this project's environment or in the peers'. Prints a JSON object a line: first the memory of
the process with the model built, then seconds and peak memory of each run.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

WIDTH, HEADS, LAYERS, FFN, VOCABULARY = (
    768,
    12,
    6,
    3072,
    1000,
)  # BART-base's encoder; a small vocabulary changes nothing
LAYER_WIDTH, LAYER_HEADS = 1024, 16
BLOCK = 128
POSITIONS = 16384
Run = Callable[[], torch.Tensor]


def rss_mib() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build_lsg_fairseq(tokens: int, attention: str, sparsity: str) -> torch.nn.Module:
    """This project's encoder, BART-base's sizes."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from models import build_model

    sizes = {"embed_dim": WIDTH, "ffn_embed_dim": FFN, "layers": LAYERS, "attention_heads": HEADS}
    flags = {f"encoder_{k}": v for k, v in sizes.items()} | {"decoder_layers": 1, "decoder_embed_dim": WIDTH}
    flags |= {"lsg_block_size": BLOCK, "lsg_sparse_block_size": BLOCK, "lsg_sparsity_factor": 2, "dropout": 0.0}
    flags |= {"lsg_attention": attention, "lsg_sparsity_type": sparsity, "max_source_positions": POSITIONS}
    model = build_model("lsg_bart_base", **flags, decoder_attention_heads=HEADS)
    ids = torch.randint(4, 60, (1, tokens))
    return model.encoder, lambda: model.encoder(ids)["encoder_out"][0]


def register_floor() -> None:
    """An attention that only multiplies its projections: what the rest of the encoder costs."""
    from lsg_fairseq.modules.lsg_attention import EncoderSelfAttention
    from lsg_fairseq.modules.registry import register_encoder_attention

    @register_encoder_attention("floor")
    class Floor(EncoderSelfAttention):
        def attend(self, query, key, value, key_padding_mask):
            return query * key * value


def hf_config(kind: type, **more: object) -> object:
    sizes = {"d_model": WIDTH, "encoder_ffn_dim": FFN, "encoder_layers": LAYERS, "encoder_attention_heads": HEADS}
    small = {"decoder_layers": 1, "decoder_attention_heads": HEADS, "decoder_ffn_dim": FFN, "vocab_size": VOCABULARY}
    still = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    return kind(**sizes, **small, **still, **more)


def build_public_lsg(tokens: int) -> tuple[torch.nn.Module, Run]:
    from lsg_converter.bart.modeling_lsg_bart import LSGBartConfig, LSGBartModel

    more = {"block_size": BLOCK, "sparse_block_size": BLOCK, "sparsity_factor": 2, "sparsity_type": "norm"}
    config = hf_config(LSGBartConfig, max_position_embeddings=POSITIONS, **more)
    return hf_encoder(LSGBartModel(config).get_encoder(), tokens)


def build_bart_full(tokens: int) -> tuple[torch.nn.Module, Run]:
    from transformers import BartConfig, BartModel

    config = hf_config(BartConfig, max_position_embeddings=POSITIONS, attn_implementation="sdpa")
    return hf_encoder(BartModel(config).get_encoder(), tokens)


def build_led(tokens: int) -> tuple[torch.nn.Module, Run]:
    from transformers import LEDConfig, LEDModel

    # LED's window counts both sides: 512 is what its published checkpoints use (1,024 in the large ones).
    more = {"attention_window": 512, "max_encoder_position_embeddings": POSITIONS}
    return hf_encoder(LEDModel(hf_config(LEDConfig, **more)).get_encoder(), tokens)


def build_bigbird(tokens: int) -> tuple[torch.nn.Module, Run]:
    from transformers import BigBirdPegasusConfig, BigBirdPegasusModel

    more = {"max_position_embeddings": POSITIONS, "attention_type": "block_sparse", "block_size": 64}
    return hf_encoder(BigBirdPegasusModel(hf_config(BigBirdPegasusConfig, **more)).get_encoder(), tokens)


def hf_encoder(encoder: torch.nn.Module, tokens: int) -> tuple[torch.nn.Module, Run]:
    ids = torch.randint(4, VOCABULARY, (1, tokens))
    return encoder, lambda: encoder(input_ids=ids, attention_mask=torch.ones_like(ids))[0]


def build_layer(name: str, tokens: int) -> tuple[torch.nn.Module, Run]:
    """One attention of 16 heads of 64 without its projections."""
    x = torch.randn(1, tokens + 1, LAYER_WIDTH)
    if name == "layer_sgemm":  # scores and weighted sums of 641 keys a query, and nothing else
        queries, keys, values = (torch.randn(LAYER_HEADS, n, 64) for n in (tokens, 641, 641))
        return torch.nn.Identity(), lambda: torch.stack([(q @ k.T) @ v for q, k, v in zip(queries, keys, values)])  # noqa: B905
    if name == "layer_public_lsg":
        from lsg_converter.bart.modeling_lsg_bart import LSGBartConfig, LSGBartEncoderSelfAttention

        sizes = {"d_model": LAYER_WIDTH, "encoder_attention_heads": LAYER_HEADS, "attention_dropout": 0.0}
        config = LSGBartConfig(**sizes, block_size=BLOCK, sparse_block_size=BLOCK, sparsity_factor=2)
        module = LSGBartEncoderSelfAttention(config, LAYER_WIDTH, LAYER_HEADS, dropout=0.0)
        mask = torch.zeros(1, 1, 1, tokens)  # the globals are added inside
        call = lambda: module(x, attention_mask=mask)[0]  # noqa: E731
    else:
        from lsg_fairseq.modules.lsg_attention import FullMultiheadAttention, LSGMultiheadAttention
        from lsg_fairseq.modules.lsg_config import LSGConfig

        kind = FullMultiheadAttention if name == "layer_full" else LSGMultiheadAttention
        module = kind(LAYER_WIDTH, LAYER_HEADS, LSGConfig())
        y = x.transpose(0, 1).contiguous()
        call = lambda: module(y, y, y)[0]  # noqa: E731
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
        setattr(module, projection, torch.nn.Identity())
    return module, call


def build(name: str, tokens: int) -> tuple[torch.nn.Module, Run]:
    """The model of that name and a function that runs it once."""
    torch.manual_seed(0)
    if name.startswith("layer_"):
        return build_layer(name, tokens)
    peers = {"public_lsg": build_public_lsg, "bart_full": build_bart_full, "led": build_led, "bigbird": build_bigbird}
    if name in peers:
        return peers[name](tokens)
    if name == "floor":
        register_floor()
    attention, _, sparsity = name.removeprefix("lsg_fairseq").strip("_").partition(":")
    attention = {"": "lsg", "floor": "floor", "full": "full"}[attention]
    return build_lsg_fairseq(tokens, attention, sparsity or "norm")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("tokens", type=int)
    parser.add_argument("mode", choices=["forward", "train"])
    parser.add_argument("dtype", choices=["float32", "bfloat16"])
    options = SimpleNamespace(**vars(parser.parse_args()))
    torch.set_num_threads(2)
    model, run = build(options.name, options.tokens)
    model.to(getattr(torch, options.dtype)).train(options.mode == "train")
    print(json.dumps({"built_mib": rss_mib()}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        if options.mode == "train":
            run().float().square().mean().backward()
            seconds = time.perf_counter() - started
            model.zero_grad()
        else:
            with torch.no_grad():
                run()
            seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "peak_mib": rss_mib()}), flush=True)


if __name__ == "__main__":
    main()
