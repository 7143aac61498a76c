"""Flags of fairseq's training commands that end in an error, or do something else, without the fixes of compat."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import (
    Dictionary,
    LanguagePairDataset,
    ListDataset,
    data_utils,
    indexed_dataset,
)
from fairseq.data.shorten_dataset import maybe_shorten_dataset
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.tasks.denoising import DenoisingConfig, DenoisingTask
from fairseq.tasks.masked_lm import MaskedLMConfig, MaskedLMTask
from omegaconf import OmegaConf

from lsg_fairseq.compat.pruning import layers_to_keep, prune_state_dict
from lsg_fairseq.compat.task_settings import upstream_mask
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import train_tokenizer
from recipes.tiny_models import TINY_SIZES, build_dictionary, build_model, random_tokens

LONG = "The old fishermen of the northern harbours were mending their nets while gulls watched from the roofs. "


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of one side, with a tokenizer: three documents, one of them long."""
    from lsg_fairseq.tokenizers.fairseq_bpe import LSGBPE, build_dictionary

    folder = tmp_path_factory.mktemp("documents")
    dictionary = build_dictionary(train_tokenizer([LONG] * 3, 300, folder / "tokenizer"))
    dictionary.save(str(folder / "dict.txt"))
    bpe = LSGBPE.from_folder(folder / "tokenizer")
    builder = indexed_dataset.make_builder(str(folder / "train.bin"), "mmap", len(dictionary))
    for count in (1, 9, 2):
        builder.add_item(dictionary.encode_line(bpe.encode(LONG * count), add_if_not_exist=False))
    builder.finalize(str(folder / "train.idx"))
    return folder


def load(task: DenoisingTask | MaskedLMTask) -> list[torch.Tensor]:
    task.load_dataset("train")
    dataset = task.datasets["train"]
    return [dataset[i] for i in range(len(dataset))]


def task_of(folder: Path, name: str, **settings: object) -> DenoisingTask | MaskedLMTask:
    """A task whose settings stand in the configuration of a command, as they do in fairseq-train."""
    config, task_class = {
        "denoising": (DenoisingConfig, DenoisingTask),
        "masked_lm": (MaskedLMConfig, MaskedLMTask),
    }[name]
    bpe = {"_name": "lsg", "lsg_tokenizer": str(folder / "tokenizer")} if settings.pop("with_bpe", True) else None
    root = OmegaConf.create({"common": {"seed": 1}, "dataset": {"dataset_impl": None}, "bpe": bpe, "task": {}})
    root.task = OmegaConf.structured(config(data=str(folder), **settings))
    return task_class.setup_task(root.task)


# --- buckets of lengths ------------------------------------------------------------------------------------------


def pairs(lengths: list[int], buckets: int) -> LanguagePairDataset:
    dictionary, items = build_dictionary(), [random_tokens(length)[0] for length in lengths]
    sides = ListDataset(items, lengths), np.array(lengths), dictionary
    return LanguagePairDataset(*sides, *sides, left_pad_source=False, num_buckets=buckets)


def test_buckets_hold_every_example_at_one_of_few_lengths() -> None:
    dataset = pairs([5, 6, 7, 20, 21, 40, 41, 42, 90], buckets=3)
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=4, required_batch_size_multiple=8)
    assert sorted(np.concatenate(batches).tolist()) == list(range(9))
    assert max(map(len, batches)) <= 4
    widths = {dataset.collater([dataset[i] for i in batch])["net_input"]["src_tokens"].size(1) for batch in batches}
    assert len(widths) <= 3


def test_numpy_has_lost_what_buckets_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_utils.get_buckets(np.arange(1, 10), 3).tolist() == [3, 6, 9]
    monkeypatch.setattr(data_utils, "np", np)
    with pytest.raises(TypeError, match="interpolation"):
        data_utils.get_buckets(np.arange(1, 10), 3)


def test_spans_that_do_not_overlap() -> None:
    mask = data_utils.compute_mask_indices((2, 50), None, 0.3, 3, mask_type="static", no_overlap=True, min_masks=2)
    assert mask.any(1).all()


# --- --shorten-method --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["truncate", "random_crop"])
@pytest.mark.parametrize("breaks", ["complete_doc", "eos"])
@pytest.mark.parametrize("name", ["masked_lm", "denoising"])
def test_cut_documents_fit_with_what_is_added(documents: Path, name: str, breaks: str, method: str) -> None:
    settings = {"rotate": 0.0} if name == "denoising" else {}
    task = task_of(documents, name, tokens_per_sample=64, shorten_method=method, sample_break_mode=breaks, **settings)
    items = load(task)
    target = "target" if name == "masked_lm" else "source"
    lengths = [len(item[target]) for item in items]
    # Nothing is left out, what is cut is as long as it may be, and what is short stays whole.
    assert max(lengths) == 64
    assert sum(length < 64 for length in lengths) >= 1
    indices, skipped = task.datasets["train"].filter_indices_by_size(np.arange(len(items)), 64)
    assert len(indices) == len(items)
    assert len(skipped) == 0


def test_stock_shortening_leaves_no_room() -> None:
    dataset = ListDataset([torch.arange(100)], np.array([100]))
    assert maybe_shorten_dataset(dataset, "train", "", "truncate", 64, 1).sizes.tolist() == [64]


# --- whole words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [("masked_lm", {"mask_whole_words": True}), ("denoising", {"mask_length": "word", "mask": 0.3, "bpe": "lsg"})],
)  # fmt: skip
def test_whole_words_are_masked_with_the_tokenizer_given(documents: Path, name: str, settings: dict) -> None:
    task = task_of(documents, name, tokens_per_sample=64, sample_break_mode="none", **settings)
    items = load(task)
    assert items
    if name == "denoising":
        starts = task.datasets["train"].mask_whole_word
        symbols = [task.dictionary[i] for i in range(len(starts))]
        assert [s for s, start in zip(symbols[4:], starts[4:], strict=True) if start] == [
            s for s in symbols[4:] if s.startswith("Ġ") or s == "<mask>"
        ]


def test_words_without_a_bpe_are_one_sentence(documents: Path) -> None:
    with pytest.raises(LSGError, match="--mask-whole-words needs to know where words begin: give --bpe lsg"):
        load(task_of(documents, "masked_lm", mask_whole_words=True, with_bpe=False))


def test_stock_builds_a_bpe_from_its_name_alone() -> None:
    with pytest.raises(LSGError, match="--bpe lsg needs --lsg-tokenizer"):
        upstream_mask("lsg", Dictionary())


# --- --encoder-layers-to-keep ------------------------------------------------------------------------------------


def built(arch: str, **flags: object) -> tuple[torch.nn.Module, Namespace]:
    args = Namespace(arch=arch, **{**TINY_SIZES, "max_source_positions": 128, **flags})
    ARCH_CONFIG_REGISTRY[arch](args)
    dictionary = build_dictionary()
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    return ARCH_MODEL_REGISTRY[arch].build_model(args, task).eval(), args


@pytest.mark.parametrize("arch", ["lsg_bart_small", "lsg_pegasus_small"])
@pytest.mark.parametrize(
    ("encoder", "decoder"), [([2, 0], [1]), ([1], None), ("0,2", "2"), (None, [0, 1])], ids=str
)  # fmt: skip
def test_layers_kept_go_on_from_a_larger_checkpoint(arch: str, encoder: object, decoder: object) -> None:
    whole = build_model(arch, encoder_layers=3, decoder_layers=3, max_source_positions=128)
    kept = {"encoder_layers_to_keep": encoder, "decoder_layers_to_keep": decoder}
    model, args = built(arch, encoder_layers=3, decoder_layers=3, **kept)
    numbers = {side: layers_to_keep(args, side) or [0, 1, 2] for side in ("encoder", "decoder")}
    model.load_state_dict(dict(whole.state_dict()), strict=True, model_cfg=args)
    for side, layers in numbers.items():
        assert getattr(args, f"{side}_layers") == len(layers) == len(getattr(model, side).layers)
        for mine, theirs in zip(getattr(model, side).layers, layers, strict=True):
            expected = getattr(whole, side).layers[theirs].state_dict()
            assert all(torch.equal(value, expected[name]) for name, value in mine.state_dict().items())
    # What is saved next says its own size, and loads as it is.
    again, _ = built(arch, **{k: v for k, v in vars(args).items() if k not in ("arch", "max_source_positions")})
    again.load_state_dict(dict(model.state_dict()), strict=True, model_cfg=args)


def test_pruned_checkpoint_is_not_pruned_again() -> None:
    """A training from random weights stores the setting as it was given."""
    model, args = built("lsg_bart_small", encoder_layers=3, encoder_layers_to_keep=[2])
    state = dict(model.state_dict())
    assert prune_state_dict(state, Namespace(encoder_layers_to_keep=[2])) is state
    model.load_state_dict(state, strict=True, model_cfg=args)


def test_encoder_alone_keeps_layers() -> None:
    flags = {"encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48, "encoder_attention_heads": 4, "encoder_layers": 3}
    whole, _ = built("lsg_roberta_small", max_positions=128, **flags)
    model, args = built("lsg_roberta_small", max_positions=128, **flags, encoder_layers_to_keep="1")
    model.load_state_dict(dict(whole.state_dict()), strict=True, model_cfg=args)
    mine, theirs = (m.encoder.sentence_encoder.layers for m in (model, whole))
    assert len(mine) == 1
    assert torch.equal(mine[0].fc1.weight, theirs[1].fc1.weight)


@pytest.mark.parametrize(
    ("value", "message"),
    [("7", "names layer 7, but the checkpoint has 2 layers: 0 to 1"), ("a", "must be layer num"), ([-1], "must be")],
)  # fmt: skip
def test_layers_that_are_not_there_are_one_sentence(value: object, message: str) -> None:
    with pytest.raises(LSGError, match=message):
        prune_state_dict(dict(build_model().state_dict()), Namespace(encoder_layers_to_keep=value))
