"""Opening a fairseq checkpoint file for conversion: fairseq's own BARTs, and LSG models that are to be lengthened."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY

from lsg_fairseq.checkpoints.build_task import is_lsg_architecture, own_flags
from lsg_fairseq.checkpoints.folder_files import find_tokenizer
from lsg_fairseq.checkpoints.loading import model_arguments, open_checkpoint, part_of_checkpoint, training_arguments
from lsg_fairseq.checkpoints.opened import MASK, ORIGINAL_FILE, OpenedCheckpoint, Upgrade
from lsg_fairseq.data.generation_settings import read_generation_settings
from lsg_fairseq.data.kept_part import KeptPart
from lsg_fairseq.huggingface.read_folder import read_json
from lsg_fairseq.models.lsg_model import read_lsg_config
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.languages import in_task_languages
from lsg_fairseq.tokenizers.fairseq_bpe import (
    DocumentTokenizer,
    build_dictionary,
    load_tokenizer,
    read_dictionary,
    remove_mask,
    with_task_symbols,
)
from lsg_fairseq.tokenizers.sequence_format import SEQUENCE_FORMAT_FILE, SequenceFormat
from lsg_fairseq.weights.families import STOCK_ARCHITECTURES
from lsg_fairseq.weights.limits import check_sizes
from lsg_fairseq.weights.model_spec import ModelSpec, spec_from_fairseq_args
from lsg_fairseq.weights.state_dicts import GLOBAL_TABLE, TOKEN_TABLE
from lsg_fairseq.weights.upgrades import upgrade_fairseq_bart, upgrade_fairseq_roberta, with_current_names

DICTIONARY_FILES = ("dict.txt", "dict.source.txt")
POSITION_ARGUMENTS = ("max_source_positions", "max_target_positions", "max_positions")
# What a converted checkpoint carries over of a model's arguments: everything that changes its output.
MODEL_ARGUMENTS = (
    *(f"{side}_{name}" for side in ("encoder", "decoder") for name in ("embed_dim", "ffn_embed_dim", "layers")),
    *(f"{side}_{name}" for side in ("encoder", "decoder") for name in ("attention_heads", "normalize_before")),
    *(f"{side}_{name}" for side in ("encoder", "decoder") for name in ("learned_pos", "layerdrop")),
    *("decoder_input_dim", "decoder_output_dim", "max_source_positions", "max_target_positions"),
    *("dropout", "attention_dropout", "activation_dropout", "activation_fn", "no_scale_embedding"),
    *("layernorm_embedding", "share_all_embeddings", "share_decoder_input_output_embed"),
    *("pooler_dropout", "pooler_activation_fn", "max_positions", "layer_norm_eps", "untie_weights_roberta"),
)


def open_fairseq(path: Path, tokenizer_folder: str | Path | None) -> OpenedCheckpoint:
    """Open a fairseq checkpoint: fairseq's own BART or RoBERTa, or an LSG model.

    Its dict.txt is read from beside it. The tokenizer is the folder given, or `tokenizer` beside it or in its data
    folder; fairseq's own models come without one that could be used, but Hugging Face's tokenizer of that model has the
    same order of tokens.

    Raises:
        LSGError: it is damaged, another model, or its dictionary or tokenizer does not fit.
    """
    state = open_checkpoint(path)
    args = _complete_arguments(model_arguments(state), path)
    task = training_arguments(state)
    found = find_tokenizer(path, tokenizer_folder, task)
    folder, vocabulary = found or (tokenizer_folder, path.parent)
    tokenizer = load_tokenizer(folder) if folder else None
    spec = spec_from_fairseq_args(args, 0)
    weights = state["model"] if spec.has_decoder else with_current_names(state["model"])
    tokens = weights.get(spec.encoder_key(TOKEN_TABLE), ())
    dictionary = _dictionary_of(vocabulary, tokenizer, len(tokens), task.get("langs"))
    spec = replace(spec, vocab_size=len(tokens), is_lsg=spec.encoder_key(GLOBAL_TABLE) in weights)
    notes = () if tokenizer else (f"{path} comes without a tokenizer: name a Hugging Face one with --tokenizer",)
    return OpenedCheckpoint(
        name=str(path),
        spec=spec,
        args=args,
        dictionary=dictionary,
        tokenizer=tokenizer,
        sequence_format=in_task_languages(_format_beside(vocabulary, tokenizer), Namespace(**task), dictionary),
        weights=lambda: weights,
        upgrade=_upgrade_of(spec),
        generation=read_generation_settings(path.parent),
        notes=notes,
        keep_part=KeptPart(of_checkpoint=part_of_checkpoint(state)).of_checkpoint,
        original=read_original(path.parent),
    )


def _upgrade_of(spec: ModelSpec) -> Upgrade | None:
    if spec.has_decoder:
        return upgrade_fairseq_bart if spec.row.stock else None
    return None if spec.is_lsg else upgrade_fairseq_roberta


def _complete_arguments(args: Namespace, path: Path) -> dict[str, Any]:
    """The arguments that matter, with what the architecture would fill in; a stock BART's name becomes the LSG one.

    Raises:
        LSGError: the model is neither one of STOCK_ARCHITECTURES nor an LSG model, or a setting is not allowed.
    """
    args.arch = STOCK_ARCHITECTURES.get(args.arch, args.arch)
    if not is_lsg_architecture(Namespace(arch=args.arch)):
        known = ", ".join(STOCK_ARCHITECTURES)
        raise LSGError(
            f"{path} is a {args.arch!r} model: only fairseq's {known} and LSG models can be converted (one of your own "
            "after the module that registers it: --user-dir DIR; in Python, import it)"
        )
    positions = {name: getattr(args, name, None) for name in POSITION_ARGUMENTS}
    check_sizes(vars(args))
    ARCH_CONFIG_REGISTRY[args.arch](args)
    vars(args).update({name: value for name, value in positions.items() if value is not None})
    own = {*MODEL_ARGUMENTS, *own_flags(args.arch)}
    kept = {name: value for name, value in vars(args).items() if name in own or name.startswith("lsg_")}
    read_lsg_config(Namespace(**kept))
    return {"arch": args.arch, **kept}


def _dictionary_of(
    folder: Path, tokenizer: DocumentTokenizer | None, num_rows: int, langs: str | None = None
) -> Dictionary:
    """The dictionary for `num_rows` embedding rows, `<mask>` being in it or not as the checkpoint has it.

    Raises:
        LSGError: there is none, or it has another number of symbols.
    """
    found = [folder / name for name in DICTIONARY_FILES if (folder / name).is_file()]
    if not found and tokenizer is None:
        raise LSGError(f"{folder} has no dict.txt, which a fairseq checkpoint needs: copy it there, or use --tokenizer")
    dictionary = build_dictionary(tokenizer) if tokenizer else read_dictionary(found[0])
    if len(dictionary) < num_rows:
        with_task_symbols(dictionary, langs)
    if len(dictionary) == num_rows - 1 and MASK not in dictionary:
        dictionary.add_symbol(MASK)  # as fairseq's denoising task, which pretrains BART, does
    if len(dictionary) == num_rows + 1 and dictionary.symbols[-1] == MASK:
        remove_mask(dictionary)
    if len(dictionary) != num_rows:
        what = "tokenizer" if tokenizer else "dict.txt"
        raise LSGError(
            f"the checkpoint has {num_rows} embedding rows and its {what} {len(dictionary)} symbols: give the one that "
            "belongs to it"
        )
    return dictionary


def _format_beside(folder: Path, tokenizer: DocumentTokenizer | None) -> SequenceFormat:
    if tokenizer is None or (folder / SEQUENCE_FORMAT_FILE).is_file():
        return SequenceFormat.load(folder)
    return tokenizer.sequence_format


def read_original(folder: Path) -> dict[str, Any]:
    """The Hugging Face configuration that a converted folder remembers; {} if it has none."""
    path = folder / ORIGINAL_FILE
    original = read_json(path) if path.is_file() else {}
    for name in ("config", "generation_config"):
        if not isinstance(original.get(name, {}), dict):
            raise LSGError(f"{path} must state {name} as an object, not {original[name]!r:.80}: convert again")
    return original
