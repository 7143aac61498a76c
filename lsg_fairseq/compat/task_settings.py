"""Task settings: tasks that look for the bpe's settings, or for their own, in the wrong place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fairseq.data.encoders.utils import get_whole_word_mask as upstream_mask
from fairseq.tasks import FairseqTask, denoising, masked_lm, multilingual_denoising
from fairseq.tasks.translation_from_pretrained_bart import TranslationFromPretrainedBARTTask
from omegaconf import DictConfig

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError

# --- --mask-whole-words reads task.args, which a masked_lm task lacks; --mask-length word and span-poisson of
# --- denoising build a bpe from its name alone, without --lsg-tokenizer or --gpt2-encoder-json.

TASKS = {
    masked_lm: masked_lm.MaskedLMTask,
    denoising: denoising.DenoisingTask,
    multilingual_denoising: multilingual_denoising.MultilingualDenoisingTask,
}
_loading: list[FairseqTask] = []


def bpe_settings_are_not_found() -> bool:
    return any(module.get_whole_word_mask is upstream_mask for module in TASKS)


def find_bpe_settings() -> None:
    masked_lm.MaskedLMTask.args = property(bpe_settings)
    for module, task_class in TASKS.items():
        module.get_whole_word_mask = get_whole_word_mask
        patches(task_class, "load_dataset")(remember_task).apply()


def get_whole_word_mask(named: Any, dictionary: Any) -> Any:
    """fairseq's, for the bpe settings of the task that is loading; `named` where there are none, as in a script.

    Raises:
        LSGError: masked_lm, which asks only if --mask-whole-words was given, has no --bpe: it would mask subwords.
    """
    task = _loading[-1] if _loading else None
    settings = named if task is None else bpe_settings(task) or named
    if settings is None and isinstance(task, masked_lm.MaskedLMTask):
        raise LSGError(
            "--mask-whole-words needs to know where words begin: give --bpe lsg --lsg-tokenizer FOLDER, the tokenizer "
            "of the data, or the --bpe that they were encoded with"
        )
    return upstream_mask(settings, dictionary)


def bpe_settings(task: FairseqTask) -> DictConfig | None:
    """The settings of --bpe, which stand beside those of the task in the configuration of a command."""
    root = task.cfg._get_root() if isinstance(task.cfg, DictConfig) else task.cfg
    return root.get("bpe") if isinstance(root, DictConfig) and root is not task.cfg else None


def remember_task(upstream: Callable[..., Any], task: FairseqTask, *args: Any, **kwargs: Any) -> Any:
    """load_dataset of a task that get_whole_word_mask finds meanwhile."""
    _loading.append(task)
    try:
        return upstream(task, *args, **kwargs)
    finally:
        _loading.pop()


# --- the task reads self.args, which its base class has kept as self.cfg since it got a dataclass (AttributeError).


class Settings:
    """`task.args` is `task.cfg`, unless somebody sets it."""

    def __get__(self, task: Any, owner: type) -> Any:
        return self if task is None else task.cfg


def settings_are_not_found() -> bool:
    task = TranslationFromPretrainedBARTTask
    return not hasattr(task, "args") and "self.args = " not in inspect.getsource(task.__init__)


def find_settings() -> None:
    TranslationFromPretrainedBARTTask.args = Settings()
