"""The settings of the task, and those of generation that belong to the checkpoints of --path."""

import logging
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks.translation import TranslationConfig
from omegaconf import DictConfig, OmegaConf

from lsg_fairseq.data.generation_settings import SETTINGS, common_settings, given_settings
from lsg_fairseq.data.kept_part import PARTS_HELP

logger = logging.getLogger(__name__)


# fairseq reads these annotations itself and knows Optional[...] alone.
@dataclass
class LSGSummarizationConfig(TranslationConfig):
    """fairseq's translation settings with defaults for long documents, and ROUGE in validation."""

    left_pad_source: bool = field(default=False, metadata={"help": "pad the source on the left"})
    max_source_positions: Optional[int] = field(
        default=None, metadata={"help": "cut sources to this many tokens, <s> and </s> included (default: the model's)"}
    )
    max_target_positions: Optional[int] = field(
        default=None, metadata={"help": "cut targets to this many tokens, <s> and </s> included (default: the model's)"}
    )
    keep_part: Optional[str] = field(
        default=None,
        metadata={
            "help": f"{PARTS_HELP} (default: what lsg-preprocess --keep-part said, else the checkpoint's, else head); "
            "of a target the head is kept"
        },
    )
    source_lang_token: Optional[str] = field(
        default=None,
        metadata={
            "help": "language code of the sources, such as en_XX (default: --source-lang where that is one, else what "
            "sequence_format.json beside the data says)"
        },
    )
    target_lang_token: Optional[str] = field(
        default=None, metadata={"help": "the same of the targets; an output begins with it or is started from it"}
    )
    forced_first_token: Optional[str] = field(
        default=None, metadata={"help": "symbol that every output begins with; it counts nothing in the score"}
    )
    forced_eos: bool = field(
        default=False,
        metadata={"help": "an output cut at the maximum length ends with </s> at no cost to its score"},
    )
    freeze_encoder: bool = field(
        default=False,
        metadata={
            "help": "train the decoder alone, and token embeddings that it shares: an update costs less; for the first "
            "steps of a decoder that is new"
        },
    )
    freeze_embeddings: bool = field(
        default=False, metadata={"help": "leave the token embeddings, and an output projection that shares them, as is"}
    )
    eval_rouge: bool = field(default=False, metadata={"help": "validate with ROUGE of generated summaries"})
    eval_rouge_args: str = field(
        default="{}",
        metadata={"help": 'generation settings for --eval-rouge as JSON, e.g. \'{"beam": 4, "max_len_b": 200}\''},
    )


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
