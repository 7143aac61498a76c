"""The settings of the task, and the generation settings that come from the checkpoints of --path."""

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


# fairseq parses these annotations and supports only Optional[...], not `| None`.
@dataclass
class LSGSummarizationConfig(TranslationConfig):
    """fairseq's translation settings with defaults for long documents, and ROUGE in validation."""

    left_pad_source: bool = field(default=False, metadata={"help": "pad the source on the left"})
    max_source_positions: Optional[int] = field(
        default=None,
        metadata={"help": "cut sources to this many tokens, including <s> and </s> (default: the model's maximum)"},
    )
    max_target_positions: Optional[int] = field(
        default=None,
        metadata={"help": "cut targets to this many tokens, including <s> and </s> (default: the model's maximum)"},
    )
    keep_part: Optional[str] = field(
        default=None,
        metadata={
            "help": f"{PARTS_HELP} (default: that of lsg-preprocess --keep-part, else the checkpoint's, else head); "
            "targets always keep their head"
        },
    )
    source_lang_token: Optional[str] = field(
        default=None,
        metadata={
            "help": "language code of the sources, such as en_XX (default: --source-lang if it is one, else that of "
            "sequence_format.json beside the data)"
        },
    )
    target_lang_token: Optional[str] = field(
        default=None,
        metadata={"help": "language code of the targets: the first token of an output, or the decoder's start token"},
    )
    forced_first_token: Optional[str] = field(
        default=None, metadata={"help": "the first symbol of every output; it does not count in the score"}
    )
    forced_eos: bool = field(
        default=False,
        metadata={"help": "end an output that reaches the maximum length with </s>, which does not count in its score"},
    )
    freeze_encoder: bool = field(
        default=False,
        metadata={
            "help": "train only the decoder, with the token embeddings that it shares: updates are cheaper; meant for "
            "the first steps of a new decoder"
        },
    )
    freeze_embeddings: bool = field(
        default=False, metadata={"help": "do not train the token embeddings and an output projection that shares them"}
    )
    eval_rouge: bool = field(default=False, metadata={"help": "generate summaries in validation and report ROUGE"})
    eval_rouge_args: str = field(
        default="{}",
        metadata={"help": 'generation settings for --eval-rouge as JSON, e.g. \'{"beam": 4, "max_len_b": 200}\''},
    )


def with_checkpoint_settings(
    args: Namespace | DictConfig, task_cfg: Any, checkpoints: Sequence[str]
) -> Namespace | DictConfig:
    """A copy of `args` with the checkpoints' own generation settings, except those that the user chose; logs both.

    The user chose a setting if a flag or hydra override names it, or if it differs from fairseq's default.

    Raises:
        LSGError: generation.json is damaged, or a field is unknown or not allowed.
    """
    if not checkpoints or not isinstance(args, DictConfig):  # a Namespace holds explicit settings only
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
    """The names in `settings` that the user chose."""
    given = given_settings(sys.argv[1:])
    defaults = {**vars(LSGSummarizationConfig()), **vars(GenerationConfig())}
    values = {**dict(vars(task_cfg) if not OmegaConf.is_config(task_cfg) else task_cfg), **dict(args)}
    chosen = {name for name in settings if name in given or values.get(name, defaults[name]) != defaults[name]}
    # Sampling, and --nbest above the checkpoint's beam, need the user's number of beams.
    return chosen | ({"beam"} & set(settings) if args.sampling or args.nbest > settings.get("beam", 1) else set())
