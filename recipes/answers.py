"""What fairseq-generate answered, checked for completeness; used by needle_documents.py and manpages/."""

from __future__ import annotations

import re
from collections import Counter

from lsg_fairseq.modules.lsg_config import LSGError

# fairseq_cli/generate.py: the number of the document, its score, and the detokenized hypothesis.
ANSWER = re.compile(r"D-(\d+)\t[^\t]*\t(.*)", re.DOTALL)


def read_answers(printed: str, number: int) -> list[str]:
    """The detokenized hypotheses (`D-` lines) of `number` documents, in the order of the data.

    Raises:
        LSGError: not every document was answered exactly once, or a line is torn.
    """
    # At line feeds alone: an answer may hold what Python takes for other line breaks.
    rows = [_parse(line) for line in printed.split("\n") if line.startswith("D-")]
    times = Counter(document for document, _ in rows)
    expected = range(number)
    wrong = {
        "missing": [i for i in expected if i not in times],
        "more than once": sorted(i for i, count in times.items() if count > 1),
        "unknown": sorted(i for i in times if i not in expected),
    }
    found = "; ".join(f"{what}: {', '.join(map(str, ids[:5]))}" for what, ids in wrong.items() if ids)
    if found:
        raise LSGError(f"fairseq-generate must answer each of {number} documents once ({found}): generate again")
    texts = dict(rows)
    return [texts[i] for i in expected]


def _parse(line: str) -> tuple[int, str]:
    match = ANSWER.fullmatch(line)
    if not match:
        raise LSGError(f"fairseq-generate left a torn line ({line[:60]!r}): generate again")
    return int(match[1]), match[2].strip()
