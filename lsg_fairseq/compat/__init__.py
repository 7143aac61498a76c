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

from lsg_fairseq.compat import (  # noqa: E402
    arrays,
    batching,
    best_checkpoint,
    commands,
    data_position,
    devices,
    divergence,
    fasta,
    generating,
    launching,
    literals,
    loading,
    multilingual,
    paths,
    plain_checkpoints,
    pruning,
    resuming,
    saving,
    searching,
    shortening,
    unsupported,
    validating,
    whole_words,
)


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
    Fix(
        "plain_checkpoints",
        _UPSTREAM + "5610",
        plain_checkpoints.checkpoints_hold_namespaces,
        plain_checkpoints.write_plain_checkpoints,
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
    Fix(
        "buckets_by_batch_size",
        "no upstream issue found",
        batching.buckets_need_max_tokens,
        batching.bucket_by_batch_size,
    ),
    Fix("numpy_as_it_was", "no upstream issue found", arrays.numpy_lacks_names, arrays.give_numpy_names),
    Fix(
        "positions_in_batch",
        "no upstream issue found",
        searching.searches_get_data_set_ids,
        searching.give_searches_positions,
    ),
    Fix(
        "matched_length_limited",
        "no upstream issue found",
        searching.matched_length_is_unlimited,
        searching.limit_matched_length,
    ),
    Fix(
        "room_when_cutting",
        _UPSTREAM + "2583",
        shortening.cut_documents_are_too_long,
        shortening.leave_room_when_cutting,
    ),
    Fix(
        "whole_words",
        _UPSTREAM + "3924",
        whole_words.bpe_settings_are_not_found,
        whole_words.find_bpe_settings,
    ),
    Fix(
        "multilingual_settings",
        _UPSTREAM + "3169",
        multilingual.settings_are_not_found,
        multilingual.find_settings,
    ),
    Fix("layers_to_keep", _UPSTREAM + "3037", pruning.layers_to_keep_are_text, pruning.keep_listed_layers),
    # Before the others that see to the settings of main, so that what they say is settled when it starts processes.
    Fix("one_training", _UPSTREAM + "4302", launching.processes_do_not_join, launching.join_processes),
    Fix(
        "flags_without_effect",
        "no upstream issue found",
        unsupported.flags_are_ignored,
        unsupported.refuse_what_cannot_be,
    ),
    Fix("generation_shards", "no upstream issue found", unsupported.shards_are_ignored, unsupported.generate_shards),
    Fix("gather_on_cpu", "no upstream issue found", devices.gathering_needs_cuda, devices.gather_on_cpu),
    Fix(
        "empty_batches",
        "no upstream issue found",
        validating.empty_batches_are_validated,
        validating.skip_empty_batches,
    ),
    Fix(
        "criterion_of_converted",
        "no upstream issue found",
        validating.criterion_is_taken_for_granted,
        validating.take_criterion_from_flags,
    ),
    Fix("bf16_without_tpu", _UPSTREAM + "4696", devices.bf16_means_tpu, devices.bf16_without_tpu),
    Fix("fp16_on_cpu", "no upstream issue found", devices.flat_gradients_need_cuda, devices.fp16_on_cpu),
    Fix("ddp_on_cpu", "no upstream issue found", devices.ddp_gets_device_ids, devices.ddp_without_device_ids),
    Fix(
        "other_optimizer_state",
        "no upstream issue found",
        resuming.optimizer_states_are_not_compared,
        resuming.refuse_other_optimizer_states,
    ),
    Fix(
        "best_metric_checked",
        _UPSTREAM + "3881",
        best_checkpoint.best_metric_is_not_checked,
        best_checkpoint.check_best_metric,
    ),
    Fix(
        "damaged_last_checkpoint",
        "no upstream issue found",
        resuming.damaged_checkpoints_end_the_training,
        resuming.go_on_from_whole_checkpoints,
    ),
    Fix(
        "position_of_all_processes",
        "no upstream issue found",
        data_position.positions_are_of_one_process,
        data_position.count_batches_of_all_processes,
    ),
    Fix("copies_in_place", "no upstream issue found", saving.copies_are_made_in_place, saving.copy_aside_and_rename),
    Fix(
        "nan_detector",
        "no upstream issue found",
        divergence.nan_detector_hooks_dictionaries,
        divergence.hook_gradients_of_leaves,
    ),
    Fix("divergence_said", "no upstream issue found", divergence.divergence_is_a_page, divergence.say_divergence),
    Fix("path_asked_for", "no upstream issue found", paths.missing_path_is_a_page, paths.ask_for_path),
    Fix("save_dir_named", "no upstream issue found", paths.save_dir_is_not_named, paths.name_save_dir),
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
