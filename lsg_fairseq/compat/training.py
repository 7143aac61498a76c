"""Training: resuming, validation and its metric, and gradients that diverge."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.data.iterators import EpochBatchIterator
from fairseq.logging import metrics
from fairseq.nan_detector import NanDetector
from fairseq.tasks import FairseqTask
from fairseq.trainer import Trainer
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn
from torch.optim import Optimizer

from lsg_fairseq.compat.loading import DamagedCheckpointError, load_checkpoint_file
from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError

logger = logging.getLogger(__name__)

DEFAULT_CRITERION = "cross_entropy"

# --- the optimizer state of other trained parameters ends in torch's own error, with half precision in a later step.


@patches(Trainer, "load_checkpoint")
def refuse_other_optimizer_states(
    upstream: Callable[..., Any], trainer: Trainer, filename: str, *args: Any, **kwargs: Any
) -> Any:
    try:
        extra_state = upstream(trainer, filename, *args, **kwargs)
    except ValueError as error:
        if "parameter group" not in str(error):
            raise
        raise _of_other_parameters(filename) from error
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise LSGError(
            f"{filename} holds no training that can be gone on with ({reason:.200}): begin with its weights alone, "
            f"--finetune-from-model {filename} and another --save-dir"
        ) from error
    optimizer = getattr(trainer.optimizer, "optimizer", None)  # empty, if nothing was restored
    if isinstance(optimizer, Optimizer) and not state_fits(optimizer):
        raise _of_other_parameters(filename)
    return extra_state


def state_fits(optimizer: Optimizer) -> bool:
    """Whether running means of gradients have their parameters' shapes (half precision: one flat parameter)."""
    return all(
        state["exp_avg"].shape == parameter.shape for parameter, state in optimizer.state.items() if "exp_avg" in state
    )


def _of_other_parameters(filename: str) -> LSGError:
    return LSGError(
        f"{filename} was saved while other parts of the model were trained: resume with the --freeze-encoder and "
        "--freeze-embeddings that it was begun with, or start from its weights alone: "
        f"--finetune-from-model {filename} and another --save-dir"
    )


# --- a damaged checkpoint_last.pt ends the training for good, though an intact checkpoint lies beside it; and
# --- where --restore-file names nothing, a training starts afresh.


@patches(Trainer, "load_checkpoint")
def go_on_from_whole_checkpoints(
    upstream: Callable[..., Any], trainer: Trainer, filename: str, *args: Any, **kwargs: Any
) -> Any:
    settings, path = trainer.cfg.checkpoint, Path(filename)
    is_last = path == Path(settings.save_dir) / f"checkpoint_last{trainer.checkpoint_suffix}.pt"
    if settings.restore_file != "checkpoint_last.pt" and "://" not in filename and not path.is_file():
        raise LSGError(
            f"--restore-file {filename} is no file: name a checkpoint, or leave the flag out to begin a training"
        )
    # A file named by --restore-file is not replaced by another.
    if settings.restore_file == "checkpoint_last.pt" and is_last and path.is_file() and not is_whole(path):
        filename = str(_newest_whole(path))
    return upstream(trainer, filename, *args, **kwargs)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read; its tensors are only mapped into memory.

    Raises:
        LSGError: it asks for code.
    """
    try:
        load_checkpoint_file(str(path), mmap=True)
    except DamagedCheckpointError:
        return False
    return True


def _newest_whole(damaged: Path) -> Path:
    suffix = damaged.name.removeprefix("checkpoint_last")
    others = [path for path in damaged.parent.glob(f"checkpoint*{suffix}") if path != damaged]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        if is_whole(path):
            logger.warning(f"{damaged} is damaged or cut short, so the training goes on from {path}")
            return path
    raise LSGError(
        f"{damaged} is damaged or cut short, and no whole checkpoint lies beside it: begin again in another "
        "--save-dir, or put a copy in its place"
    )


# --- stopped within an epoch and resumed with more or fewer processes, a training reads batches twice or never: fairseq
# --- counts the batches of one process.


@patches(EpochBatchIterator, "state_dict")
def save_num_processes(upstream: Callable[..., dict[str, Any]], iterator: EpochBatchIterator) -> dict[str, Any]:
    return {**upstream(iterator), "num_shards": iterator.num_shards}


@patches(EpochBatchIterator, "load_state_dict")
def count_batches_of_all_processes(
    upstream: Callable[..., None], iterator: EpochBatchIterator, state: dict[str, Any]
) -> None:
    before, done = state.get("num_shards", iterator.num_shards), state.get("iterations_in_epoch", 0)
    if done and before != iterator.num_shards:
        state = {**state, "iterations_in_epoch": _position(iterator, done, before)}
    upstream(iterator, state)


def _position(iterator: EpochBatchIterator, done: int, before: int) -> int:
    """The number of batches that each process has read: all read one order of batches in turn."""
    if iterator.grouped_shuffling:
        raise LSGError(
            f"this epoch was begun with {before} processes and --grouped-shuffling, whose order differs with "
            f"{iterator.num_shards}: use {before}, or begin the epoch again with --reset-dataloader"
        )
    position, repeated = divmod(done * before, iterator.num_shards)
    logger.info(
        f"resumed within an epoch with {iterator.num_shards} processes instead of {before}: {position} batches of each "
        f"are done{f', and {repeated} batches of all are read again' if repeated else ''}"
    )
    return position


# --- where the last batches are fewer than the processes, some get an empty one, which fairseq-validate hands to the
# --- model (KeyError: 'net_input'); fairseq-train does not.


@patches(checkpoint_utils, "load_model_ensemble_and_task")
def skip_empty_batches(upstream: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    models, cfg, task = upstream(*args, **kwargs)
    skip_empty_samples(task)
    return models, cfg, task


def skip_empty_samples(task: FairseqTask) -> None:
    """Let the task's valid_step return no loss for a batch without examples."""
    upstream = task.valid_step

    @functools.wraps(upstream)
    def valid_step(sample: Any, *args: Any, **kwargs: Any) -> tuple[Any, int, dict[str, Any]]:
        return upstream(sample, *args, **kwargs) if sample else (0.0, 0, {})

    task.valid_step = valid_step


# --- a checkpoint that was converted and not trained here names no criterion (AttributeError).


@patches(checkpoint_utils, "load_model_ensemble_and_task")
def take_criterion_from_flags(
    upstream: Callable[..., Any], filenames: Any, arg_overrides: Any = None, *args: Any, **kwargs: Any
) -> Any:
    models, cfg, task = upstream(filenames, arg_overrides, *args, **kwargs)
    if isinstance(cfg, DictConfig) and cfg.get("criterion") is None:
        with open_dict(cfg):
            cfg.criterion = criterion_of(arg_overrides or {})
    return models, cfg, task


def criterion_of(given: Mapping[str, Any]) -> DictConfig:
    """The settings of the criterion that the flags name (default: cross_entropy)."""
    name = given.get("criterion") or DEFAULT_CRITERION
    dataclass = CRITERION_DATACLASS_REGISTRY.get(name)
    settings = {}
    for each in fields(dataclass) if dataclass else ():
        # Settings interpolated from other groups of a training are off where nothing was trained.
        if each.name in given or str(each.default).startswith("${"):
            settings[each.name] = given.get(each.name, False)
    return OmegaConf.create({**settings, "_name": name})


# --- --best-checkpoint-metric is looked up after the first epoch only, a KeyError if validation lacks it; and without
# --- --maximize-best-checkpoint-metric the best accuracy or ROUGE is silently the worst.

HIGHER_IS_BETTER = ("rouge", "accuracy", "bleu", "f1", "mcc", "acc_and_f1", "pearson", "spearman")
LOWER_IS_BETTER = ("loss", "nll_loss", "ppl", "wer", "raw_wer", "uer")


@patches(Trainer, "__init__")
def check_best_metric(upstream: Callable[..., None], trainer: Trainer, cfg: Any, *args: Any, **kwargs: Any) -> None:
    if not cfg.dataset.disable_validation:
        check_direction(cfg.checkpoint.best_checkpoint_metric, cfg.checkpoint.maximize_best_checkpoint_metric)
    upstream(trainer, cfg, *args, **kwargs)
    if not cfg.dataset.disable_validation:
        _check_name(trainer, cfg.checkpoint.best_checkpoint_metric)


def check_direction(metric: str, maximize: bool) -> None:
    """Compare the flag with the metric's known direction; unknown metrics pass.

    Raises:
        LSGError: the checkpoint called the best would be the worst.
    """
    follow = "checkpoint_best.pt, --patience and --keep-best-checkpoints would follow the worst one"
    if metric.startswith(HIGHER_IS_BETTER) and not maximize:
        raise LSGError(
            f"--best-checkpoint-metric {metric} is better the higher it is: add --maximize-best-checkpoint-metric; "
            f"without it {follow}"
        )
    if metric in LOWER_IS_BETTER and maximize:
        raise LSGError(
            f"--best-checkpoint-metric {metric} is better the lower it is: leave --maximize-best-checkpoint-metric "
            f"out; with it {follow}"
        )


def _check_name(trainer: Trainer, metric: str) -> None:
    known = _known_metrics(trainer)
    if metric in known:
        return
    known |= _metrics_of_one_batch(trainer)
    if metric in known:
        return
    others = sorted(known - {"num_updates", "wps", "ups", "wpb", "bsz"})
    needs = "; ROUGE needs --eval-rouge" if metric.lower().startswith("rouge") and "rougeL" not in known else ""
    raise LSGError(
        f"--best-checkpoint-metric {metric} is not a metric of this validation, which has {', '.join(others)}{needs}"
    )


def _known_metrics(trainer: Trainer) -> set[str]:
    """Metrics known without validating: the loss, and what a task computes from generated texts."""
    return {"loss", *getattr(trainer.task, "generation_metrics", ())}


def _metrics_of_one_batch(trainer: Trainer) -> set[str]:
    """The metrics that the first batch of the first validation set gives."""
    subset = trainer.cfg.dataset.valid_subset.split(",")[0]
    batch = trainer.get_valid_iterator(subset).first_batch
    with metrics.aggregate(new_root=True) as aggregated:
        trainer.valid_step(batch)
        names = set(aggregated.get_smoothed_values())
    metrics.reset_meters("valid")
    return names


# --- NanDetector hooks the gradients of encoders too, whose output is a dictionary of lists: torch raises
# --- StopIteration.


@patches(NanDetector, "add_hooks")
def hook_gradients_of_leaves(_upstream: Callable[..., None], detector: NanDetector, module: nn.Module) -> None:
    if detector.forward:
        detector.fhooks.append(module.register_forward_hook(detector.fhook_fn))
    if detector.backward and not any(module.children()):
        detector.bhooks.append(module.register_full_backward_hook(detector.bhook_fn))


# --- a training that diverges, or whose loss scale has no smaller value left, ends in a traceback.


@patches(Trainer, "train_step")
def say_divergence(upstream: Callable[..., Any], trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
    try:
        return upstream(trainer, *args, **kwargs)
    except FloatingPointError as error:
        crash = Path(trainer.cfg.checkpoint.save_dir) / "crash.pt"
        raise LSGError(
            f"training diverged at update {trainer.get_num_updates() + 1} ({' '.join(str(error).split())}): lower "
            f"--lr, or give --clip-norm or more --warmup-updates; what the model was then is in {crash}"
        ) from error
