"""What stock fairseq needs on today's Python and torch, mended from outside: one small function a problem.

Each `Fix` names the upstream issue, tells whether the installed fairseq still needs it, and is a no-op where it does
not.
`apply_fixes` runs when the package is imported, which is before fairseq builds anything for a --user-dir.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

# Two of fairseq's tasks configure logging when they are imported, for DEBUG, and a library's user would see every line
# of every package. With a handler on the root, logging.basicConfig does nothing; fairseq's commands have their own.
_placeholder = logging.NullHandler()
logging.getLogger().addHandler(_placeholder)
try:
    import fairseq  # noqa: F401
except ValueError as error:  # the official 0.12.2: "mutable default ... is not allowed"
    raise ImportError(
        "the installed fairseq cannot be imported on this Python (official fairseq 0.12.2 needs Python 3.10 or older); "
        "replace it: pip uninstall fairseq && pip install ve-fairseq==0.12.3"
    ) from error
finally:
    logging.getLogger().removeHandler(_placeholder)

from lsg_fairseq.compat import arrays, batching, commands, devices, fasta, generating, literals, loading, resuming  # noqa: E402


@dataclass(frozen=True)
class Fix:
    """A problem of the installed packages: its name, where it is known, whether it is here, and the cure."""

    name: str
    issue: str
    needed: Callable[[], bool]
    apply: Callable[[], None]


_UPSTREAM = "https://github.com/facebookresearch/fairseq/issues/"
FIXES = [
    Fix(
        "torchaudio_beside_cpu_torch",
        "PyPI torchaudio links CUDA",
        loading.torchaudio_fails_to_load,
        loading.hide_torchaudio,
    ),
    Fix(
        "checkpoints_weights_only", _UPSTREAM + "5610", loading.checkpoint_loading_is_unsafe, loading.load_weights_only
    ),
    Fix("broadcast_pickle", _UPSTREAM + "5610", loading.broadcast_objects_are_refused, loading.trust_broadcast_objects),
    Fix(
        "settings_are_literals",
        "no upstream issue found",
        literals.settings_are_run,
        literals.read_settings_as_literals,
    ),
    Fix("fasta_without_shell", "no upstream issue found", fasta.fasta_index_runs_a_shell, fasta.read_fasta_index),
    Fix(
        "task_knows_checkpoints",
        "no upstream issue found",
        generating.task_does_not_know_checkpoints,
        generating.tell_task_its_checkpoints,
    ),
    Fix("longest_batch_kept", _UPSTREAM + "5036", batching.last_batch_is_dropped, batching.keep_last_batch),
    Fix("numpy_without_compat", "no upstream issue found", arrays.numpy_lacks_compat, arrays.give_numpy_compat),
    Fix("bf16_without_tpu", _UPSTREAM + "4696", devices.bf16_means_tpu, devices.bf16_without_tpu),
    Fix("fp16_on_cpu", "no upstream issue found", devices.flat_gradients_need_cuda, devices.fp16_on_cpu),
    Fix("cpu_workers", "no upstream issue found", devices.cpu_workers_are_not_started, devices.start_cpu_workers),
    Fix("ddp_on_cpu", "no upstream issue found", devices.ddp_gets_device_ids, devices.ddp_without_device_ids),
    Fix(
        "other_optimizer_state",
        "no upstream issue found",
        resuming.optimizer_states_are_not_compared,
        resuming.refuse_other_optimizer_states,
    ),
    Fix(
        "user_dir_imported",
        _UPSTREAM + "3299",
        commands.user_dir_is_imported_by_path,
        commands.accept_imported_user_dir,
    ),
    Fix(
        "one_line_errors",
        "no upstream issue found",
        commands.errors_come_with_traceback,
        commands.print_user_errors_in_one_line,
    ),
]


def apply_fixes() -> list[str]:
    """Apply what is needed; return the names of the fixes applied (none on a second call)."""
    applied = []
    for fix in FIXES:
        if fix.needed():
            fix.apply()
            applied.append(fix.name)
    return applied
