"""Patches stock fairseq for today's Python and torch at import time, one function per upstream bug.

Each `Fix` names the upstream issue and tests whether the installed fairseq still has it. `apply_fixes` runs when the
package is imported, before fairseq builds anything for a --user-dir.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass

# Two of fairseq's tasks configure logging when they are imported, for DEBUG, and a library's user would see every line
# of every package. With a handler on the root, logging.basicConfig does nothing; fairseq's commands have their own.
_placeholder = logging.NullHandler()
logging.getLogger().addHandler(_placeholder)
try:
    import fairseq  # noqa: F401
except ValueError as error:
    # The official 0.12.2: "mutable default ... is not allowed".
    _build = "ve-fairseq==0.12.3" if sys.version_info < (3, 13) else "--no-build-isolation fairseq-fixed==0.12.3.1"
    raise ImportError(
        "the installed fairseq cannot be imported on this Python (official fairseq 0.12.2 needs Python 3.10 or older); "
        f"replace it: pip uninstall fairseq && pip install {_build}"
    ) from error
finally:
    logging.getLogger().removeHandler(_placeholder)

from lsg_fairseq.compat import (  # noqa: E402
    arrays,
    batching,
    best_checkpoint,
    checkpoint_files,
    checkpoint_parts,
    commands,
    devices,
    divergence,
    flags,
    generating,
    interactive,
    launching,
    literals,
    loading,
    paths,
    pruning,
    resuming,
    task_settings,
    unsupported,
    validating,
)


@dataclass(frozen=True)
class Fix:
    """A bug of an installed package: its name, the upstream issue, whether it is present, and the patch."""

    name: str
    issue: str
    needed: Callable[[], bool]
    apply: Callable[[], None]


_UPSTREAM = "https://github.com/facebookresearch/fairseq/issues/"
_NOT_REPORTED = "no upstream issue found"
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
        checkpoint_files.checkpoints_hold_namespaces,
        checkpoint_files.write_plain_checkpoints,
    ),
    Fix(
        "parts_of_checkpoints",
        _NOT_REPORTED,
        checkpoint_parts.parts_are_taken_for_granted,
        checkpoint_parts.say_which_file_lacks_parts,
    ),
    Fix("broadcast_pickle", _UPSTREAM + "5610", loading.broadcast_objects_are_refused, loading.trust_broadcast_objects),
    Fix("settings_are_literals", _NOT_REPORTED, literals.settings_are_run, literals.read_settings_as_literals),
    Fix("fasta_without_shell", _NOT_REPORTED, literals.fasta_index_runs_a_shell, literals.read_fasta_index),
    Fix(
        "task_knows_checkpoints",
        _NOT_REPORTED,
        generating.task_does_not_know_checkpoints,
        generating.tell_task_its_checkpoints,
    ),
    Fix(
        "documents_end_at_line_feeds",
        "no upstream issue found",
        interactive.carriage_returns_end_documents,
        interactive.end_documents_at_line_feeds,
    ),
    Fix("longest_batch_kept", _UPSTREAM + "5036", batching.last_batch_is_dropped, batching.keep_last_batch),
    Fix("buckets_by_batch_size", _NOT_REPORTED, batching.buckets_need_max_tokens, batching.bucket_by_batch_size),
    Fix("numpy_as_it_was", _NOT_REPORTED, arrays.numpy_lacks_names, arrays.give_numpy_names),
    Fix("positions_in_batch", _NOT_REPORTED, generating.searches_get_data_set_ids, generating.give_searches_positions),
    Fix(
        "matched_length_limited", _NOT_REPORTED, generating.matched_length_is_unlimited, generating.limit_matched_length
    ),
    Fix("room_when_cutting", _UPSTREAM + "2583", batching.cut_documents_are_too_long, batching.leave_room_when_cutting),
    Fix("whole_words", _UPSTREAM + "3924", task_settings.bpe_settings_are_not_found, task_settings.find_bpe_settings),
    Fix("multilingual_settings", _UPSTREAM + "3169", task_settings.settings_are_not_found, task_settings.find_settings),
    Fix("layers_to_keep", _UPSTREAM + "3037", pruning.layers_to_keep_are_text, pruning.keep_listed_layers),
    # Before the others that see to the settings of main, so that what they say is settled when it starts processes.
    Fix("one_training", _UPSTREAM + "4302", launching.processes_do_not_join, launching.join_processes),
    Fix("numbers_checked", _NOT_REPORTED, flags.numbers_are_not_checked, flags.check_numbers),
    Fix("lists_named", _NOT_REPORTED, flags.lists_are_pages, flags.name_lists),
    Fix("settings_named", _NOT_REPORTED, flags.settings_are_not_named, flags.name_settings),
    Fix("flags_without_effect", _NOT_REPORTED, unsupported.flags_are_ignored, unsupported.refuse_what_cannot_be),
    Fix("generation_shards", _NOT_REPORTED, unsupported.shards_are_ignored, unsupported.generate_shards),
    Fix("gather_on_cpu", _NOT_REPORTED, devices.gathering_needs_cuda, devices.gather_on_cpu),
    Fix("empty_batches", _NOT_REPORTED, validating.empty_batches_are_validated, validating.skip_empty_batches),
    Fix(
        "criterion_of_converted",
        _NOT_REPORTED,
        validating.criterion_is_taken_for_granted,
        validating.take_criterion_from_flags,
    ),
    Fix("bf16_without_tpu", _UPSTREAM + "4696", devices.bf16_means_tpu, devices.bf16_without_tpu),
    Fix("fp16_on_cpu", _NOT_REPORTED, devices.flat_gradients_need_cuda, devices.fp16_on_cpu),
    Fix("ddp_on_cpu", _NOT_REPORTED, devices.ddp_gets_device_ids, devices.ddp_without_device_ids),
    Fix(
        "other_optimizer_state",
        _NOT_REPORTED,
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
        _NOT_REPORTED,
        resuming.damaged_checkpoints_end_the_training,
        resuming.go_on_from_whole_checkpoints,
    ),
    Fix(
        "position_of_all_processes",
        _NOT_REPORTED,
        resuming.positions_are_of_one_process,
        resuming.count_batches_of_all_processes,
    ),
    Fix(
        "copies_in_place",
        _NOT_REPORTED,
        checkpoint_files.copies_are_made_in_place,
        checkpoint_files.copy_aside_and_rename,
    ),
    Fix("nan_detector", _NOT_REPORTED, divergence.nan_detector_hooks_dictionaries, divergence.hook_gradients_of_leaves),
    Fix("divergence_said", _NOT_REPORTED, divergence.divergence_is_a_page, divergence.say_divergence),
    Fix("path_asked_for", _NOT_REPORTED, paths.missing_path_is_a_page, paths.ask_for_path),
    Fix("save_dir_named", _NOT_REPORTED, paths.save_dir_is_not_named, paths.name_save_dir),
    Fix(
        "user_dir_imported",
        _UPSTREAM + "3299",
        commands.user_dir_is_imported_by_path,
        commands.accept_imported_user_dir,
    ),
    Fix("one_line_errors", _NOT_REPORTED, commands.errors_come_with_traceback, commands.print_user_errors_in_one_line),
]


def apply_fixes() -> list[str]:
    """Apply what is needed; return the names of the fixes applied (none on a second call)."""
    applied = []
    for fix in FIXES:
        if fix.needed():
            fix.apply()
            applied.append(fix.name)
    return applied
