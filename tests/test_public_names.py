"""Names that others may import stay where they were, whichever room the code moves to."""

from __future__ import annotations

import importlib

import pytest

PUBLIC_NAMES = {
    "lsg_fairseq.hub": ("lsg_bart_base", "lsg_bart_large", "lsg_pegasus_large", "lsg_roberta_base", "lsg_bert_base"),
    "lsg_fairseq.conversion": (
        "KEY_TABLE",
        "convert_from_hf",
        "convert_longer_from_hf",
        "convert_to_hf",
        "key_pairs",
    ),
    "lsg_fairseq.tokenization": (
        "DocumentTokenizer",
        "LSGBPE",
        "SequenceFormat",
        "build_dictionary",
        "embedding_rows",
        "hf_to_fairseq_ids",
        "load_tokenizer",
        "token_rows",
        "train_tokenizer",
    ),
    "lsg_fairseq.checkpoints.convert": ("convert_checkpoint", "plan_conversion", "write_conversion"),
    "lsg_fairseq.checkpoints.export": ("export_checkpoint",),
    "lsg_fairseq.commands.convert": ("main",),
    "lsg_fairseq.commands.export": ("main",),
    "lsg_fairseq.commands.preprocess": ("main",),
    "lsg_fairseq.commands.summarize": ("main",),
    "lsg_fairseq.modules.lsg_attention": ("lsg_attention",),
    "lsg_fairseq.modules.lsg_config": ("LSGConfig", "LSGError"),
    "lsg_fairseq.modules.registry": ("register_encoder_attention", "register_sparse_selection"),
    "lsg_fairseq.modules.sparse_tokens": ("SparseTokens", "draw_projections"),
}


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_public_names(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in PUBLIC_NAMES[module] if not hasattr(found, name)] == []
