"""What fairseq-generate answered, checked for completeness; used by needle_documents.py and manpages/."""

from __future__ import annotations

from collections import Counter

from lsg_fairseq.modules.lsg_config import LSGError


def read_answers(printed: str, number: int) -> list[str]:
    """The detokenized hypotheses (`D-` lines) of `number` documents, in the order of the data.

    Raises:
        LSGError: not every document was answered exactly once.
    """
    # At line feeds alone: an answer may hold what Python takes for other line breaks.
    rows = [line.split("\t", 2) for line in printed.split("\n") if line.startswith("D-")]
    times = Counter(int(name[2:]) for name, _, _ in rows)
    expected = range(number)
    wrong = {
        "missing": [i for i in expected if i not in times],
        "more than once": sorted(i for i, count in times.items() if count > 1),
        "unknown": sorted(i for i in times if i not in expected),
    }
    found = "; ".join(f"{what}: {', '.join(map(str, ids[:5]))}" for what, ids in wrong.items() if ids)
    if found:
        raise LSGError(f"fairseq-generate must answer each of {number} documents once ({found}): generate again")
    texts = {int(name[2:]): text.strip() for name, _, text in rows}
    return [texts[i] for i in expected]
