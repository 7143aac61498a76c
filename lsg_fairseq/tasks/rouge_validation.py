"""ROUGE of generated summaries in validation (--eval-rouge), and its generation settings (--eval-rouge-args)."""

from __future__ import annotations

import difflib
import json
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from fairseq import utils
from fairseq.logging import metrics
from torch import Tensor, nn

from lsg_fairseq.generation import LSGSequenceGenerator
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.scoring import ROUGE_NAMES, rouge_scores
from lsg_fairseq.weights.limits import NUMBERS, Bounds

# --- the settings.

FLAG = "--eval-rouge-args"
# Name -> type, or the numbers that are allowed: the settings that a task's build_generator reads. fairseq's other
# generation settings (nbest, prefix_size, ...) are read by its commands and would have no effect in validation.
SETTINGS: dict[str, type | Bounds] = {
    **{name: NUMBERS[name] for name in ("beam", "max_len_a", "max_len_b", "min_len", "lenpen", "unkpen")},
    **{name: NUMBERS[name] for name in ("temperature", "no_repeat_ngram_size")},
    **dict.fromkeys(("unnormalized", "match_source_len", "sampling"), bool),
    **{name: NUMBERS[name] for name in ("sampling_topk", "sampling_topp")},
    **{name: NUMBERS[name] for name in ("diverse_beam_groups", "diverse_beam_strength", "diversity_rate")},
    "print_alignment": str,
    "forced_first_token": str,
    "forced_eos": bool,
}
KINDS = {bool: "true or false", str: "a string"}


def parse_rouge_arguments(text: str) -> dict[str, Any]:
    """Parse --eval-rouge-args, a JSON object of generation settings.

    Raises:
        LSGError: the text is not a JSON object, or a setting is unknown or not allowed.
    """
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LSGError(f'{FLAG} is not JSON: {text!r:.80} ({error}); give an object such as {{"beam": 4}}') from error
    if not isinstance(settings, dict):
        raise LSGError(f'{FLAG} must be a JSON object such as {{"beam": 4}}, not {text!r:.80}')
    for name, value in settings.items():
        _check_name(name)
        _check_value(name, value)
    _check_together(settings)
    return settings


def _check_name(name: str) -> None:
    if name in SETTINGS:
        return
    with_underscores = name.strip("-").replace("-", "_")
    if with_underscores in SETTINGS:
        raise LSGError(f"{FLAG}: write {name!r} with underscores: {with_underscores!r}")
    close = difflib.get_close_matches(with_underscores, SETTINGS, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise LSGError(f"{FLAG} has no setting {name!r}; {meant}choose from {', '.join(SETTINGS)}")


def _check_value(name: str, value: object) -> None:
    wanted = SETTINGS[name]
    fits = wanted.allow(value) if isinstance(wanted, Bounds) else isinstance(value, wanted)
    if fits and name == "print_alignment":
        fits = value in ("hard", "soft")
    if not fits:
        words = str(wanted) if isinstance(wanted, Bounds) else KINDS[wanted]
        allowed = '"hard" or "soft"' if name == "print_alignment" else words
        raise LSGError(f"{FLAG}: {name} must be {allowed}, not {json.dumps(value):.80}")


def _check_together(settings: Mapping[str, Any]) -> None:
    """Refuse combinations of allowed values that fairseq's search would refuse, after a whole epoch."""
    searches = {
        "sampling": settings.get("sampling", False),
        "diverse_beam_groups": settings.get("diverse_beam_groups", -1) > 0,
        "match_source_len": settings.get("match_source_len", False),
        "diversity_rate": settings.get("diversity_rate", -1) > 0,
    }
    chosen = [name for name, is_chosen in searches.items() if is_chosen]
    if len(chosen) > 1:
        raise LSGError(f"{FLAG}: {' and '.join(chosen)} exclude each other: choose one")
    for name in ("sampling_topk", "sampling_topp"):
        if settings.get(name, -1) >= 0 and not searches["sampling"]:
            raise LSGError(f'{FLAG}: {name} needs "sampling": true')
    beam, groups = settings.get("beam", 5), settings.get("diverse_beam_groups", -1)
    if groups > 0 and beam % groups:
        raise LSGError(f"{FLAG}: diverse_beam_groups ({groups}) must divide beam ({beam})")
    shortest, longest = settings.get("min_len", 1), settings.get("max_len_b", 200)
    if shortest > longest and not settings.get("max_len_a") and not searches["match_source_len"]:
        raise LSGError(f"{FLAG}: min_len ({shortest}) must not be greater than max_len_b ({longest})")


# --- the validation.


class RougeValidation:
    """Mixin that adds ROUGE to the validation of a translation task, which has `rouge_arguments` and `data_bpe`."""

    rouge_generator: LSGSequenceGenerator | None = None

    def valid_step(self, sample: dict[str, Any], model: nn.Module, criterion: Any) -> tuple[Any, Any, dict[str, Any]]:
        """fairseq's validation step, with ROUGE of generated summaries if --eval-rouge."""
        loss, sample_size, logging_output = super().valid_step(sample, model, criterion)
        if self.cfg.eval_rouge:
            for name, total in self._rouge_sums(sample, model).items():
                logging_output[f"_{name}"] = total
        return loss, sample_size, logging_output

    @property
    def generation_metrics(self) -> tuple[str, ...]:
        """The metrics of validation in addition to those of the criterion."""
        return ROUGE_NAMES if self.cfg.eval_rouge else ()

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log mean ROUGE F1 x 100 as rouge1, rouge2, rougeL and rougeLsum."""
        super().reduce_metrics(logging_outputs, criterion)
        count = sum(float(log.get("_rouge_count", 0)) for log in logging_outputs)
        if not count:
            return
        for name in ROUGE_NAMES:
            total = sum(float(log.get(f"_{name}", 0)) for log in logging_outputs)
            metrics.log_scalar(name, 100 * total / count, count, round=2)

    def _rouge_sums(self, sample: dict[str, Any], model: nn.Module) -> dict[str, float]:
        """The sum of each F1 over the batch, and `rouge_count`; fairseq sums them over workers."""
        if self.rouge_generator is None:
            self.rouge_generator = self.build_generator([model], Namespace(**self.rouge_arguments))
        hypotheses = self.inference_step(self.rouge_generator, [model], sample)
        sums = dict.fromkeys(ROUGE_NAMES, 0.0)
        for target, (best, *_) in zip(sample["target"], hypotheses, strict=True):
            scores = rouge_scores(self._text(utils.strip_pad(target, self.tgt_dict.pad())), self._text(best["tokens"]))
            sums = {name: sums[name] + scores[name] for name in ROUGE_NAMES}
        return {**sums, "rouge_count": float(len(hypotheses))}

    def _text(self, tokens: Tensor) -> str:
        symbols = self.tgt_dict.string(tokens.int().cpu())
        return symbols if self.data_bpe is None else self.data_bpe.decode(symbols)
