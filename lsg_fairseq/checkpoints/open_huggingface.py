"""Opening a Hugging Face folder for conversion: configuration, weights, tokenizer and generation settings together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from fairseq.data import Dictionary
from torch import Tensor

from lsg_fairseq.checkpoints.opened import MASK, OpenedCheckpoint, find_mask
from lsg_fairseq.huggingface.config import check_lm_activation, read_config
from lsg_fairseq.huggingface.encoder_keys import encoder_notes, key_layout_of, parts_of_hf
from lsg_fairseq.huggingface.folder_kinds import check_head
from lsg_fairseq.huggingface.generation_config import generation_settings, source_prefix
from lsg_fairseq.huggingface.read_folder import HFCheckpoint, read_hf_folder
from lsg_fairseq.huggingface.seq2seq_weights import name_in_fairseq
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import FILLER, are_fillers
from lsg_fairseq.tokenizers.fairseq_bpe import (
    DocumentTokenizer,
    build_dictionary,
    embedding_rows,
    load_tokenizer,
    remove_mask,
)
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat, is_format_of
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.upgrades import upgrade_fairseq_bart


def open_huggingface(folder: Path, tokenizer_folder: str | Path | None) -> OpenedCheckpoint:
    """Open a Hugging Face folder; the tokenizer is the folder's own unless another is given.

    Raises:
        LSGError: it is not a checkpoint, is damaged or of another type, or the tokenizer does not fit.
    """
    checkpoint = read_hf_folder(folder)
    spec, args = read_config(checkpoint.config)
    check_head(checkpoint.config, checkpoint.tensors)
    tokenizer = load_tokenizer(tokenizer_folder or folder, checkpoint.config)
    dictionary, hf_rows = fit_tokenizer(tokenizer, spec)
    in_order = torch.equal(hf_rows, torch.arange(len(dictionary)))
    rows = None if in_order else hf_rows
    # A BART that was fine-tuned with fairseq has no `<mask>`, which its global tokens are made from.
    is_without_mask = bool(spec.row.stock) and not spec.is_lsg and find_mask(dictionary, tokenizer) is None
    source = OpenedCheckpoint(
        name=str(folder),
        spec=spec,
        args=args,
        dictionary=dictionary,
        tokenizer=tokenizer,
        sequence_format=tokenizer.sequence_format,
        weights=lambda: name_in_fairseq(checkpoint.tensors, spec, rows),
        upgrade=upgrade_fairseq_bart if spec.has_decoder and is_without_mask else None,
    )
    source = _with_generation(source, checkpoint, hf_rows) if spec.has_decoder else _with_heads(source, checkpoint)
    return replace(source, notes=(*source.notes, *_filler_notes(tokenizer)))


def _filler_notes(tokenizer: DocumentTokenizer) -> list[str]:
    rows, count = len(tokenizer.tokens), sum(1 for token in tokenizer.tokens if FILLER.fullmatch(token))
    return [f"{count} of {rows:,} embedding rows have no token and take filler symbols"] if count else []


def _with_generation(source: OpenedCheckpoint, checkpoint: HFCheckpoint, hf_rows: Tensor) -> OpenedCheckpoint:
    """What an encoder-decoder's files say about generation."""
    dictionary = source.dictionary
    settings, notes = generation_settings(checkpoint.config, checkpoint.generation_config)
    start = _symbol(dictionary, hf_rows, settings.pop("decoder_start_token_id"), "decoder_start_token_id")
    first = settings.pop("forced_bos_token_id")
    if first is not None:
        settings["forced_first_token"] = _symbol(dictionary, hf_rows, first, "forced_bos_token_id")
    return replace(
        source,
        sequence_format=_with_target_language(source, start, settings),
        # transformers' minimum is 0 where nothing is stated, and fairseq's 1.
        generation={"min_len": 0, **settings},
        notes=(*checkpoint.notes, *notes, *_prefix_notes(source_prefix(checkpoint.config))),
        original={"config": checkpoint.config, "generation_config": checkpoint.generation_config},
    )


def _prefix_notes(prefix: str) -> list[str]:
    told = f"config.json's prefix {prefix!r} is put in front of a document by lsg-summarize and summarize, as by"
    return [f"{told} transformers' pipeline; data for fairseq-generate must have it already"] if prefix else []


def _with_target_language(source: OpenedCheckpoint, start: str, settings: dict[str, object]) -> SequenceFormat:
    """The format with the decoder's start; a start or a forced first token that is a language is the targets'.

    A forced language is taken out of `settings`: it would stand for every output, whatever language is asked for.
    """
    stored = source.sequence_format
    for symbol in (start, settings.get("forced_first_token")):
        if stored.languages and symbol in source.tokenizer.languages:
            stored = stored.speaking(target=symbol)
    if settings.get("forced_first_token") in source.tokenizer.languages:
        del settings["forced_first_token"]
    return stored if start in source.tokenizer.languages else replace(stored, decoder_start=start)


def _with_heads(source: OpenedCheckpoint, checkpoint: HFCheckpoint) -> OpenedCheckpoint:
    """What becomes of an encoder's heads and token types, also for the converted folder's record."""
    layout = key_layout_of(source.spec)
    if layout.lm in parts_of_hf(checkpoint.tensors, layout):
        check_lm_activation(source.args, source.spec.kind)
    notes = encoder_notes(checkpoint.tensors, source.spec)
    return replace(source, notes=tuple(notes), original={"config": checkpoint.config, "notes": notes})


def fit_tokenizer(tokenizer: DocumentTokenizer, spec: ModelSpec) -> tuple[Dictionary, Tensor]:
    """The dictionary of a Hugging Face checkpoint, and the row (V,) of each of its embedding rows.

    Embedding rows without a token take fillers. BARTs that were fine-tuned with fairseq (bart-large-cnn, -xsum) have no
    row for `<mask>`, their tokenizer's last token; their dictionary is without it too.

    Raises:
        LSGError: the tokenizer is another family's, or has more or far fewer tokens than the checkpoint has rows.
    """
    if not is_format_of(spec.row, tokenizer.sequence_format):
        raise LSGError(
            f"the checkpoint is a {spec.family} model and the tokenizer puts other tokens around a text "
            f"({type(tokenizer).__name__}): give the tokenizer files that belong to the checkpoint"
        )
    count = len(tokenizer.tokens)
    if count < spec.vocab_size and are_fillers(spec.vocab_size, count):
        tokenizer.fill_rows(spec.vocab_size)
        count = spec.vocab_size
    dictionary = build_dictionary(tokenizer)
    if count == spec.vocab_size + 1 and tokenizer.tokens[-1] == MASK:
        remove_mask(dictionary)
    elif count != spec.vocab_size:
        raise LSGError(
            f"the checkpoint has {spec.vocab_size} embedding rows and its tokenizer {count} tokens: give the tokenizer "
            "files that belong to the checkpoint"
        )
    return dictionary, embedding_rows(tokenizer, dictionary)


def _symbol(dictionary: Dictionary, rows: Tensor, hf_id: int, name: str) -> str:
    if not isinstance(hf_id, int) or not 0 <= hf_id < len(rows):
        raise LSGError(f"{name} must be an id below {len(rows)}, the size of the vocabulary, not {hf_id!r}: correct it")
    return dictionary[int(rows[hf_id])]
