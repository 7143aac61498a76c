"""A checkpoint -> the interface of its kind."""

from __future__ import annotations

from pathlib import Path

from fairseq.models import FairseqEncoderModel

from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.checkpoints.open_fairseq import read_original
from lsg_fairseq.checkpoints.ready import CheckpointOptions, find_checkpoint
from lsg_fairseq.hub.encoder import LSGEncoderHubInterface
from lsg_fairseq.hub.entry_checkpoints import ENTRY_LOCATIONS
from lsg_fairseq.hub.summarizer import LSGHubInterface
from lsg_fairseq.huggingface.config_fields import label_names
from lsg_fairseq.huggingface.generation_config import source_prefix
from lsg_fairseq.weights.state_dicts import HEAD_NAME


def from_checkpoint(
    checkpoint: str | Path, options: CheckpointOptions | None = None, overrides: Overrides | None = None
) -> LSGHubInterface | LSGEncoderHubInterface:
    """Load whatever find_checkpoint knows: LSGEncoderHubInterface for an encoder-only model, else LSGHubInterface.

    Raises:
        LSGError: the checkpoint cannot be found or loaded, or a setting is not allowed.
    """
    return from_files(
        find_checkpoint(checkpoint, options or CheckpointOptions(), ENTRY_LOCATIONS), overrides or Overrides()
    )


def from_files(files: CheckpointFiles, overrides: Overrides) -> LSGHubInterface | LSGEncoderHubInterface:
    """The same from what find_checkpoint found.

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
