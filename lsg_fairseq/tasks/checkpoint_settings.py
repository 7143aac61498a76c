"""fairseq's generator options, filled up with the settings that belong to the checkpoints of --path."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from fairseq.dataclass.configs import GenerationConfig
from omegaconf import DictConfig, OmegaConf

from lsg_fairseq.data.generation_settings import SETTINGS, common_settings, given_settings
from lsg_fairseq.tasks.summarization_config import LSGSummarizationConfig

logger = logging.getLogger(__name__)


def with_checkpoint_settings(
    args: Namespace | DictConfig, task_cfg: Any, checkpoints: Sequence[str]
) -> Namespace | DictConfig:
    """A copy of `args` with the settings beside the checkpoints, but for those that the user chose; a line says which.

    The user chose what the command line or a hydra override names, and what differs from fairseq's default.

    Raises:
        LSGError: generation.json is damaged, or has a field that is unknown or of another type.
    """
    if not checkpoints or not isinstance(args, DictConfig):  # a Namespace states what somebody asked for
        return args
    settings, where = common_settings(checkpoints)
    if not settings:
        if where:
            logger.warning(where)
        return args
    chosen = _chosen(args, task_cfg, settings)
    taken = {name: settings[name] for name in SETTINGS if name in settings and name not in chosen}
    said = [f"{', '.join(f'{name}={value!r}' for name, value in taken.items()) or 'nothing'} taken from {where}"]
    said += [f"chosen by the user: {', '.join(sorted(chosen))}"] if chosen else []
    logger.info("generation settings: " + "; ".join(said))
    return Namespace(**{**OmegaConf.to_container(args, resolve=True), **taken})


def _chosen(args: DictConfig, task_cfg: Any, settings: Mapping[str, Any]) -> set[str]:
    """Those of the settings that are the user's own."""
    given = given_settings(sys.argv[1:])
    defaults = {**vars(LSGSummarizationConfig()), **vars(GenerationConfig())}
    values = {**dict(vars(task_cfg) if not OmegaConf.is_config(task_cfg) else task_cfg), **dict(args)}
    chosen = {name for name in settings if name in given or values.get(name, defaults[name]) != defaults[name]}
    # As many hypotheses as are asked for, and sampled ones, take that many beams.
    return chosen | ({"beam"} & set(settings) if args.sampling or args.nbest > settings.get("beam", 1) else set())
