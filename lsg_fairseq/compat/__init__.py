"""Patches stock fairseq for today's Python and torch at import time, one function per upstream bug.

Each `Fix` names the upstream issue and tests whether the installed fairseq still has it. `apply_fixes` runs when the
package is imported, before fairseq builds anything for a --user-dir.
"""

from __future__ import annotations

import logging
import sys

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
    batching,
    checkpoint_parts,
    commands,
    flags,
    generating,
    launching,
    literals,
    loading,
    packages,
    pruning,
    task_settings,
    training,
)
from lsg_fairseq.compat.patch import Fix, fix_of  # noqa: E402

_UPSTREAM = "https://github.com/facebookresearch/fairseq/issues/"
_NOT_REPORTED = "no upstream issue found"
FIXES = [
    Fix(
        "torchaudio_beside_cpu_torch",
        "PyPI torchaudio links CUDA",
        packages.torchaudio_fails_to_load,
        packages.hide_torchaudio,
    ),
    Fix(
        "checkpoints_weights_only", _UPSTREAM + "5610", loading.checkpoint_loading_is_unsafe, loading.load_weights_only
    ),
    fix_of("plain_checkpoints", _UPSTREAM + "5610", loading.write_plain_checkpoints),
    fix_of("parts_of_checkpoints", _NOT_REPORTED, checkpoint_parts.say_which_file_lacks_parts),
    Fix("broadcast_pickle", _UPSTREAM + "5610", loading.broadcast_objects_are_refused, loading.trust_broadcast_objects),
    Fix("settings_are_literals", _NOT_REPORTED, literals.settings_are_run, literals.read_settings_as_literals),
    fix_of("fasta_without_shell", _NOT_REPORTED, literals.build_fasta_index),
    fix_of("task_knows_checkpoints", _NOT_REPORTED, generating.tell_task_its_checkpoints),
    Fix(
        "documents_end_at_line_feeds",
        _NOT_REPORTED,
        generating.carriage_returns_end_documents,
        generating.end_documents_at_line_feeds,
    ),
    fix_of("longest_batch_kept", _UPSTREAM + "5036", batching.keep_last_batch),
    fix_of("buckets_by_batch_size", _NOT_REPORTED, batching.bucket_by_batch_size),
    Fix("numpy_as_it_was", _NOT_REPORTED, packages.numpy_lacks_names, packages.give_numpy_names),
    fix_of("positions_in_batch", _NOT_REPORTED, generating.give_searches_positions),
    fix_of("matched_length_limited", _NOT_REPORTED, generating.limit_matched_length),
    fix_of("room_when_cutting", _UPSTREAM + "2583", *batching.leave_room_when_cutting),
    Fix("whole_words", _UPSTREAM + "3924", task_settings.bpe_settings_are_not_found, task_settings.find_bpe_settings),
    Fix("multilingual_settings", _UPSTREAM + "3169", task_settings.settings_are_not_found, task_settings.find_settings),
    Fix("layers_to_keep", _UPSTREAM + "3037", pruning.layers_to_keep_are_text, pruning.keep_listed_layers),
    # Before the others that see to the settings of main, so that what they say is settled when it starts processes.
    fix_of("one_training", _UPSTREAM + "4302", launching.join_processes),
    fix_of("numbers_checked", _NOT_REPORTED, flags.check_numbers),
    fix_of("lists_named", _NOT_REPORTED, flags.name_lists),
    fix_of("settings_named", _NOT_REPORTED, flags.name_literals, flags.name_overrides),
    fix_of("flags_without_effect", _NOT_REPORTED, launching.refuse_what_cannot_be),
    fix_of("generation_shards", _NOT_REPORTED, launching.generate_shards),
    fix_of("gather_on_cpu", _NOT_REPORTED, launching.gather_on_cpu),
    fix_of("empty_batches", _NOT_REPORTED, training.skip_empty_batches),
    fix_of("criterion_of_converted", _NOT_REPORTED, training.take_criterion_from_flags),
    fix_of("bf16_without_tpu", _UPSTREAM + "4696", launching.bf16_without_tpu),
    fix_of("fp16_on_cpu", _NOT_REPORTED, launching.fp16_on_cpu),
    Fix("ddp_on_cpu", _NOT_REPORTED, launching.ddp_gets_device_ids, launching.ddp_without_device_ids),
    fix_of("other_optimizer_state", _NOT_REPORTED, training.refuse_other_optimizer_states),
    fix_of("best_metric_checked", _UPSTREAM + "3881", training.check_best_metric),
    fix_of("damaged_last_checkpoint", _NOT_REPORTED, training.go_on_from_whole_checkpoints),
    fix_of(
        "position_of_all_processes",
        _NOT_REPORTED,
        training.save_num_processes,
        training.count_batches_of_all_processes,
    ),
    Fix(
        "copies_in_place",
        _NOT_REPORTED,
        loading.copies_are_made_in_place,
        loading.copy_aside_and_rename,
    ),
    fix_of("nan_detector", _NOT_REPORTED, training.hook_gradients_of_leaves),
    fix_of("divergence_said", _NOT_REPORTED, training.say_divergence),
    fix_of("path_asked_for", _NOT_REPORTED, commands.ask_for_split_path, commands.ask_for_loaded_path),
    fix_of("save_dir_named", _NOT_REPORTED, commands.name_save_dir),
    fix_of("user_dir_imported", _UPSTREAM + "3299", commands.accept_imported_user_dir),
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
