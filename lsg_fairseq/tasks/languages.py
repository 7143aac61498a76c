"""The languages of a task: from its flags, and as ids of its dictionary."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

import torch
from fairseq.data import Dictionary
from omegaconf import DictConfig
from torch import LongTensor

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.languages import FRONT, language_symbol
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat


def in_task_languages(
    sequence_format: SequenceFormat, settings: Namespace | DictConfig, dictionary: Dictionary
) -> SequenceFormat:
    """The format with the languages of the settings: --source-lang-token and --target-lang-token.

    Without them, --source-lang and --target-lang, as in fairseq's translation_from_pretrained_bart, if they are
    language codes of the dictionary and not just suffixes of the data files.

    Raises:
        LSGError: the model has no language codes, or not one of these.
    """
    chosen = []
    for side in ("source", "target"):
        token, suffix = (getattr(settings, f"{side}_{name}", None) for name in ("lang_token", "lang"))
        if token and sequence_format.languages:
            index_of_symbol(dictionary, language_symbol(token))
        is_code = sequence_format.languages and suffix and language_symbol(suffix) in dictionary
        chosen.append(token or (suffix if is_code else None))
    return sequence_format.speaking(*chosen)


def index_of_symbol(dictionary: Dictionary, symbol: str) -> int:
    """The id of a symbol that may be a language's.

    Raises:
        LSGError: the dictionary has no such symbol.
    """
    row = dictionary.index(symbol)
    if dictionary[row] != symbol:
        known = [name.strip("[]") for name in dictionary.symbols if name[0] == "[" and name[3:4] == "_"]
        raise LSGError(
            f"{symbol.strip('[]')!r} is not a language of this model, whose dictionary has "
            f"{', '.join(known) or 'no language codes'}: use one of them"
        )
    return row


def indices_of_symbols(dictionary: Dictionary, symbols: Sequence[str]) -> LongTensor:
    """The ids (n,) of several symbols, int64; raises as index_of_symbol."""
    return torch.tensor([index_of_symbol(dictionary, symbol) for symbol in symbols], dtype=torch.long)


def decoder_starts(
    sequence_format: SequenceFormat, dictionary: Dictionary, languages: Sequence[str]
) -> dict[str, LongTensor]:
    """How outputs in these B languages begin, as LSGSequenceGenerator reads it from a sample.

    Returns:
        The ids `decoder_start` (B,), and `forced_first` (B,) if outputs begin with their language; both int64.

    Raises:
        LSGError: the model has no language codes or not these, or a language is "" and the model has no default.
    """
    for code in dict.fromkeys(languages):
        sequence_format.speaking(target=code)
    starts = {"decoder_start": [sequence_format.start(code) for code in languages]}
    if sequence_format.languages == FRONT:
        starts["forced_first"] = [sequence_format.forced_first(code) for code in languages]
    return {name: indices_of_symbols(dictionary, symbols) for name, symbols in starts.items()}
