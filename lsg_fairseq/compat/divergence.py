"""Divergence: NaN or infinite gradients end training in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairseq.nan_detector import NanDetector
from fairseq.trainer import Trainer
from torch import nn

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError

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
