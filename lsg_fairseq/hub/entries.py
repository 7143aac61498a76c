"""The torch.hub entries, one for each checkpoint of the table, with the same arguments; and how they load it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from fairseq.models import FairseqEncoderModel

from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.checkpoints.open_fairseq import read_original
from lsg_fairseq.checkpoints.ready import CheckpointOptions, find_checkpoint
from lsg_fairseq.data.one_sentence import in_one_sentence
from lsg_fairseq.hub.base import HubInterface
from lsg_fairseq.hub.encoder import LSGEncoderHubInterface
from lsg_fairseq.hub.entry_checkpoints import ENTRY_CHECKPOINTS, ENTRY_LOCATIONS, documentation
from lsg_fairseq.hub.summarizer import LSGHubInterface
from lsg_fairseq.huggingface.config_fields import label_names
from lsg_fairseq.huggingface.generation_config import source_prefix
from lsg_fairseq.modules.lsg_config import FIELD_ALIASES, LSGConfig, LSGError
from lsg_fairseq.weights.limits import check_number
from lsg_fairseq.weights.state_dicts import HEAD_NAME


def from_checkpoint(
    checkpoint: str | Path, options: CheckpointOptions | None = None, overrides: Overrides | None = None
) -> LSGHubInterface | LSGEncoderHubInterface:
    """Load any checkpoint that find_checkpoint finds.

    Returns:
        An LSGEncoderHubInterface for an encoder-only model, else an LSGHubInterface.

    Raises:
        LSGError: the checkpoint cannot be found or loaded, or a setting is not allowed.
    """
    return from_files(
        find_checkpoint(checkpoint, options or CheckpointOptions(), ENTRY_LOCATIONS), overrides or Overrides()
    )


def from_files(files: CheckpointFiles, overrides: Overrides) -> LSGHubInterface | LSGEncoderHubInterface:
    """As from_checkpoint, for what find_checkpoint returned.

    Raises:
        LSGError: it cannot be loaded, or a setting is not allowed.
    """
    task, model, tokenizer = load_task_and_model(files, overrides)
    config = read_original(files.model.parent).get("config", {})
    if isinstance(model, FairseqEncoderModel):
        interface: LSGHubInterface | LSGEncoderHubInterface = LSGEncoderHubInterface(task, model, tokenizer)
    else:
        interface = LSGHubInterface(task, model, tokenizer, files.generation, source_prefix(config))
    head = getattr(model, "classification_heads", {})
    if HEAD_NAME in head:
        interface.name_labels(label_names(config, head[HEAD_NAME].out_proj.out_features))
    return interface


FIELD_NAMES = tuple(f.name for f in fields(LSGConfig))
DROPOUT_ALIAS = "attention_probs_dropout_prob"


def _parameter(name: str, kind: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=kind)


# The arguments of every entry; None leaves a setting as it is in the checkpoint.
SIGNATURE = inspect.Signature(
    [
        _parameter("checkpoint", str | Path | None),
        _parameter("tokenizer", str | Path | None),
        _parameter("revision", str | None),
        _parameter("max_source_positions", int | None),
        *(_parameter(f.name, type(f.default) | None) for f in fields(LSGConfig)),
        *(_parameter(alias, int | None) for alias in FIELD_ALIASES),
        _parameter(DROPOUT_ALIAS, float | None),
    ],
    return_annotation=HubInterface,
)


def _entry(name: str) -> Callable[..., HubInterface]:
    """Make the entry for a row of ENTRY_CHECKPOINTS: it loads the row's weights and has its documentation."""

    def entry(*args: Any, **settings: Any) -> HubInterface:
        with in_one_sentence():
            return _load(name, _bind(name, args, settings))

    entry.__name__ = entry.__qualname__ = name
    entry.__signature__ = SIGNATURE
    entry.__doc__ = documentation(name, ENTRY_CHECKPOINTS[name])
    return entry


def _bind(name: str, args: tuple[Any, ...], settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name.

    Raises:
        LSGError: they do not fit the signature.
    """
    for given in settings:
        if given not in SIGNATURE.parameters:
            close = difflib.get_close_matches(given, SIGNATURE.parameters, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise LSGError(f"{name} has no setting {given!r}{hint}; choose from {', '.join(SIGNATURE.parameters)}")
    try:
        return dict(SIGNATURE.bind(*args, **settings).arguments)
    except TypeError as error:
        raise LSGError(f"{name} cannot be called with these arguments ({error}): pass them by name") from error


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
    options = CheckpointOptions(
        family=own.family,
        tokenizer=given.get("tokenizer"),
        revision=given.get("revision"),
        max_source_positions=overrides.max_source_positions,
    )
    return from_checkpoint(own.location if checkpoint is None else checkpoint, options, overrides)


def read_overrides(given: dict[str, Any]) -> Overrides:
    """The settings that override a checkpoint's; checks them, as far as possible, before anything is loaded.

    Raises:
        LSGError: a value is not allowed, or a setting is given by two names.
    """
    lsg = {name: given[name] for name in (*FIELD_NAMES, *FIELD_ALIASES) if given.get(name) is not None}
    if "sparsity_type" in given:
        lsg["sparsity_type"] = given["sparsity_type"] or "none"
    for alias, name in FIELD_ALIASES.items():
        if alias in lsg and name in lsg:
            raise LSGError(f"{alias} and {name} are the same LSG setting: pass only one of them")
    lsg = {FIELD_ALIASES.get(name, name): value for name, value in lsg.items()}
    for name, value in lsg.items():
        # Each value by itself and without sparse tokens: whether sizes fit together depends on the checkpoint.
        LSGConfig.from_dict({"sparsity_type": "none", name: value})
    return Overrides(lsg, _check_dropout(given.get(DROPOUT_ALIAS)), _check_length(given.get("max_source_positions")))


def _check_dropout(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise LSGError(f"{DROPOUT_ALIAS} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _check_length(value: Any) -> int | None:
    if value is not None:
        check_number("max_source_positions", value)
    return value


globals().update({name: _entry(name) for name in ENTRY_CHECKPOINTS})

__all__ = ["SIGNATURE", *ENTRY_CHECKPOINTS, "read_overrides"]
