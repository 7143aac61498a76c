"""fairseq's commands inside this process: the same parser and main function, without the seconds of a start."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics


def run_main(parser: argparse.ArgumentParser, main: Callable[[Any], Any], flags: list[object]) -> Any:
    """Run a command's main function; what fairseq keeps in the process from command to command is cleared."""
    vars(checkpoint_utils.save_checkpoint).pop("best", None)
    metrics.reset()
    args = options.parse_args_and_arch(parser, input_args=[str(flag) for flag in flags])
    return main(convert_namespace_to_omegaconf(args))


def train(*flags: object) -> None:
    """fairseq-train."""
    from fairseq_cli.train import main, should_stop_early

    vars(should_stop_early).clear()
    run_main(options.get_training_parser(), main, list(flags))


def generate(*flags: object) -> None:
    """fairseq-generate, printing to standard output."""
    from fairseq_cli.generate import main

    run_main(options.get_generation_parser(), main, list(flags))


def validate(*flags: object) -> None:
    """fairseq-validate; what it overrides in the checkpoint's own settings is what the flags say."""
    from fairseq_cli.validate import main

    given = options.parse_args_and_arch(
        options.get_validation_parser(), input_args=[str(flag) for flag in flags], suppress_defaults=True
    )
    run_main(options.get_validation_parser(), functools.partial(main, override_args=given), list(flags))


def interact(*flags: object) -> None:
    """fairseq-interactive."""
    from fairseq_cli.interactive import main

    run_main(options.get_interactive_generation_parser(), main, list(flags))
