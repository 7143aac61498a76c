"""Documents -> summaries in order, a window at a time, so that memory does not depend on their number."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from tqdm import tqdm

from lsg_fairseq.hub.batches import WINDOW, BatchedGenerator
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Document
from lsg_fairseq.summarizing.resumable_output import StreamOutput


def summarize_documents(
    documents: Iterable[Document], generator: BatchedGenerator, output: StreamOutput, bar: tqdm
) -> int:
    """Write one line per document, in order, except for those that `output` has already.

    Returns:
        The number of documents.

    Raises:
        LSGError: `output` has more lines than there are documents, or as its methods and run_window.
    """
    documents, start = iter(documents), 0
    while window := list(islice(documents, WINDOW)):
        _run_window(window, start, generator, output, bar)
        start += len(window)
    if output.num_written > start:
        raise LSGError(
            f"the output has {output.num_written} lines, but the input only {start} documents: use --overwrite to "
            "start again"
        )
    return start


def _run_window(
    window: list[Document], start: int, generator: BatchedGenerator, output: StreamOutput, bar: tqdm
) -> None:
    """Summarise a window whose first document is number `start`; a continued run makes the same batches."""
    end = start + len(window)
    if output.lines.as_json:
        for document in window:  # reports an object without a free field before the work is done
            output.lines.field_for(document)
    output.begin_window(window, start)
    for place in range(start, min(end, output.num_written)):
        output.check(window[place - start], place)
    if output.num_written >= end:
        bar.update(len(window))
        return
    summaries = {place - start: text for place, text in output.finished.items() if start <= place < end}
    # Empty documents are not generated from, and get an empty summary.
    summaries |= {i: "" for i, document in enumerate(window) if not document.text.strip()}
    written = max(output.num_written - start, 0)
    is_done = [i < written or i in summaries for i in range(len(window))]
    bar.update(sum(is_done))
    _write_ready(window, start, summaries, output)
    named = any(document.language for document in window)
    languages = [document.language for document in window] if named else None
    texts, queries = [document.text for document in window], [document.query for document in window]
    for places, batch in generator.run_window(texts, is_done, languages, queries):
        for place, text in zip(places, batch, strict=True):
            if start + place >= output.num_written and place not in summaries:
                output.keep(start + place, text)
                summaries[place] = text
        bar.update(sum(not is_done[place] for place in places))
        _write_ready(window, start, summaries, output)
    output.end_window()


def _write_ready(window: list[Document], start: int, summaries: dict[int, str], output: StreamOutput) -> None:
    """Write the summaries that follow the last line without a gap."""
    while (place := output.num_written - start) in summaries:
        output.write(output.lines.line(window[place], summaries[place]))
