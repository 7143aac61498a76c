"""The torch.hub entries: one for each checkpoint of the table, all with the same explicit settings."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from lsg_fairseq.checkpoints.loading import Overrides
from lsg_fairseq.checkpoints.ready import SourceOptions
from lsg_fairseq.data.one_sentence import in_one_sentence
from lsg_fairseq.hub.base import HubInterface
from lsg_fairseq.hub.entry_checkpoints import ENTRY_CHECKPOINTS
from lsg_fairseq.hub.help import documentation
from lsg_fairseq.hub.load import from_checkpoint
from lsg_fairseq.modules.lsg_config import FIELD_ALIASES, LSGConfig, LSGError
from lsg_fairseq.weights.limits import MAX_POSITIONS

FIELD_NAMES = tuple(f.name for f in fields(LSGConfig))
DROPOUT_ALIAS = "attention_probs_dropout_prob"


def every_entry(
    checkpoint: str | Path | None = None,
    tokenizer: str | Path | None = None,
    revision: str | None = None,
    max_source_positions: int | None = None,
    attention: str | None = None,
    block_size: int | None = None,
    sparse_block_size: int | None = None,
    sparsity_factor: int | None = None,
    sparsity_type: str | None = None,
    lsh_num_pre_rounds: int | None = None,
    lsh_seed: int | None = None,
    num_global_tokens: int | None = None,
    mask_first_token: bool | None = None,
    pass_global_tokens_to_decoder: bool | None = None,
    pool_with_global: bool | None = None,
    adaptive: bool | None = None,
    lsg_num_pre_rounds: int | None = None,
    attention_probs_dropout_prob: float | None = None,
) -> HubInterface:
    """The signature of every entry, spelled out once; what an entry does is in _load."""
    raise NotImplementedError("call one of the entries instead, such as lsg_bart_base")


SIGNATURE = inspect.signature(every_entry)


def _entry(name: str) -> Callable[..., HubInterface]:
    """Make the entry for one row of ENTRY_CHECKPOINTS: the row's weights and documentation behind one signature."""

    @functools.wraps(every_entry)
    def entry(*args: Any, **settings: Any) -> HubInterface:
        with in_one_sentence():
            return _load(name, _bind(name, args, settings))

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = documentation(name, ENTRY_CHECKPOINTS[name])
    return entry


def _bind(name: str, args: tuple[Any, ...], settings: dict[str, Any]) -> dict[str, Any]:
    """The given arguments by name.

    Raises:
        LSGError: a name is not in the signature.
    """
    for given in settings:
        if given not in SIGNATURE.parameters:
            close = difflib.get_close_matches(given, SIGNATURE.parameters, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise LSGError(f"{name} has no setting {given!r}{hint}; choose from {', '.join(SIGNATURE.parameters)}")
    try:
        return dict(SIGNATURE.bind(*args, **settings).arguments)
    except TypeError as error:
        raise LSGError(f"{name} cannot be called like that: {error}; name the settings") from error


def _load(name: str, given: dict[str, Any]) -> HubInterface:
    for setting, types in (("checkpoint", str | Path), ("tokenizer", str | Path), ("revision", str)):
        value = given.get(setting)
        if value is not None and not (isinstance(value, types) and str(value)):
            raise LSGError(
                f"{setting} must be a {'name' if setting == 'revision' else 'path or a name'}, not {value!r:.80}"
            )
    overrides = read_overrides(given)
    own = ENTRY_CHECKPOINTS[name]
    checkpoint = given.get("checkpoint")
    options = SourceOptions(
        family=own.family,
        tokenizer=given.get("tokenizer"),
        revision=given.get("revision"),
        max_source_positions=overrides.max_source_positions,
    )
    return from_checkpoint(own.location if checkpoint is None else checkpoint, options, overrides)


def read_overrides(given: dict[str, Any]) -> Overrides:
    """Check what does not depend on the checkpoint, before anything is loaded.

    Raises:
        LSGError: a value is not allowed, or two names of one setting are given.
    """
    lsg = {name: given[name] for name in (*FIELD_NAMES, *FIELD_ALIASES) if given.get(name) is not None}
    if "sparsity_type" in given:
        lsg["sparsity_type"] = given["sparsity_type"] or "none"
    for alias, name in FIELD_ALIASES.items():
        if alias in lsg and name in lsg:
            raise LSGError(f"{alias} and {name} are the same LSG setting; give one of them")
    lsg = {FIELD_ALIASES.get(name, name): value for name, value in lsg.items()}
    for name, value in lsg.items():
        # Alone and without sparse tokens: whether sizes fit each other is seen with the checkpoint's own.
        LSGConfig.from_dict({"sparsity_type": "none", name: value})
    return Overrides(lsg, _check_dropout(given.get(DROPOUT_ALIAS)), _check_length(given.get("max_source_positions")))


def _check_dropout(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise LSGError(f"{DROPOUT_ALIAS} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _check_length(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not 8 <= value <= MAX_POSITIONS):
        raise LSGError(
            f"max_source_positions must be an integer of at least 8 and at most {MAX_POSITIONS:,}, not {value!r}"
        )
    return value


lsg_bart_manpages = _entry("lsg_bart_manpages")
lsg_bart_base = _entry("lsg_bart_base")
lsg_bart_large = _entry("lsg_bart_large")
lsg_pegasus_large = _entry("lsg_pegasus_large")
lsg_bart_base_16384 = _entry("lsg_bart_base_16384")
lsg_bart_base_4096_arxiv = _entry("lsg_bart_base_4096_arxiv")
lsg_bart_base_4096_pubmed = _entry("lsg_bart_base_4096_pubmed")
lsg_bart_base_4096_mediasum = _entry("lsg_bart_base_4096_mediasum")
lsg_bart_base_4096_multinews = _entry("lsg_bart_base_4096_multinews")
lsg_bart_base_4096_wcep = _entry("lsg_bart_base_4096_wcep")
lsg_bart_base_4096_booksum = _entry("lsg_bart_base_4096_booksum")
lsg_bart_base_16384_arxiv = _entry("lsg_bart_base_16384_arxiv")
lsg_bart_base_16384_pubmed = _entry("lsg_bart_base_16384_pubmed")
lsg_bart_base_16384_mediasum = _entry("lsg_bart_base_16384_mediasum")
lsg_roberta_base = _entry("lsg_roberta_base")
lsg_distilroberta_base = _entry("lsg_distilroberta_base")
lsg_xlm_roberta_base = _entry("lsg_xlm_roberta_base")
lsg_camembert_base = _entry("lsg_camembert_base")
lsg_distilcamembert_base = _entry("lsg_distilcamembert_base")
lsg_bert_base = _entry("lsg_bert_base")
lsg_distilbert_base = _entry("lsg_distilbert_base")
lsg_legal_base = _entry("lsg_legal_base")
lsg_legal_small = _entry("lsg_legal_small")

__all__ = [*ENTRY_CHECKPOINTS, "read_overrides"]
