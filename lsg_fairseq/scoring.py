"""ROUGE: a fairseq scorer (`--scoring rouge`), and the function that validation uses."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.scoring import BaseScorer, register_scorer

from lsg_fairseq.tokenizers.base import LINE_BREAKS

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer as RougeCounter

ROUGE_NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

# rougeLsum expects one sentence per line. Pegasus writes line breaks as <n>.
LINE_BREAK = re.compile(rf"[{LINE_BREAKS}]|<n>")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def split_sentences(text: str) -> str:
    """The text with one sentence per line, for rougeLsum.

    Sentences end at line breaks (or Pegasus' `<n>`) if there are any; otherwise at every `.`, `!` or `?` before
    whitespace, even in abbreviations.
    """
    text = text.strip()
    pattern = LINE_BREAK if LINE_BREAK.search(text) else SENTENCE_END
    return "\n".join(filter(None, (sentence.strip() for sentence in pattern.split(text))))


@lru_cache(maxsize=2)
def _counter(use_stemmer: bool) -> "RougeCounter":
    # This imports nltk, which takes longer than the whole of this package.
    from rouge_score.rouge_scorer import RougeScorer as RougeCounter

    return RougeCounter(list(ROUGE_NAMES), use_stemmer=use_stemmer)


def rouge_scores(reference: str, prediction: str, use_stemmer: bool = True) -> dict[str, float]:
    """The F1 (0 to 1) of ROUGE-1, -2, -L and -Lsum of one prediction, by their names in the rouge-score package."""
    scores = _counter(use_stemmer).score(split_sentences(reference), split_sentences(prediction))
    return {name: scores[name].fmeasure for name in ROUGE_NAMES}


@dataclass
class RougeScorerConfig(FairseqDataclass):
    # fairseq would turn a bool that defaults to True into a flag that switches it off.
    rouge_stemmer: ChoiceEnum(["true", "false"]) = field(
        default="true", metadata={"help": "compare Porter stems of words, as published ROUGE scores do"}
    )


@register_scorer("rouge", dataclass=RougeScorerConfig)
class RougeScorer(BaseScorer):
    """Mean ROUGE F1 of detokenized summaries; `score` is ROUGE-Lsum x 100."""

    def score(self) -> float:
        """Mean ROUGE-Lsum F1 x 100; 0 without examples."""
        return self.means()["rougeLsum"]

    def result_string(self) -> str:
        """One line: the four means and the number of examples."""
        means = self.means()
        labels = dict(zip(ROUGE_NAMES, ("ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"), strict=True))
        scores = ", ".join(f"{label} {means[name]:.2f}" for name, label in labels.items())
        return f"{scores} (F1 x 100, {len(self.ref)} examples)"

    def means(self) -> dict[str, float]:
        """Mean F1 x 100 by name."""
        use_stemmer = str(self.cfg.rouge_stemmer) == "true"
        scores = [rouge_scores(r, p, use_stemmer) for r, p in zip(self.ref, self.pred, strict=True)]
        return {name: 100 * sum(s[name] for s in scores) / max(len(scores), 1) for name in ROUGE_NAMES}
