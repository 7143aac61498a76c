"""Checks --best-checkpoint-metric: does validation compute it, and is higher or lower better?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairseq.logging import metrics
from fairseq.trainer import Trainer

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError

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
