"""Validation with ROUGE of generated summaries (--eval-rouge)."""

from argparse import Namespace
from typing import Any

from fairseq import utils
from fairseq.logging import metrics
from torch import Tensor, nn

from lsg_fairseq.generation import LSGSequenceGenerator
from lsg_fairseq.scoring import ROUGE_NAMES, rouge_scores


class RougeValidation:
    """Put in front of a translation task with `rouge_arguments` and `data_bpe` to give it ROUGE in validation."""

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
        """The metrics that validation has beside those of the criterion."""
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
        """Sums of F1 over the batch, and how many; all are summed over workers by fairseq."""
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
