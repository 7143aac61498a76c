"""Texts -> summaries, in batches of texts of similar length, in order and with bounded memory."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice, repeat
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lsg_fairseq.data.generation_settings import SETTINGS
from lsg_fairseq.data.kept_part import check_part, keep, pieces_to_read
from lsg_fairseq.data.one_sentence import in_one_sentence
from lsg_fairseq.hub.base import HubInterface, check_language, check_switch, check_text, iterate
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.languages import decoder_starts
from lsg_fairseq.weights.limits import check_number

# Documents in memory at a time; they are sorted by length into batches.
WINDOW = 128
# Default limits of a batch, in documents and in tokens with padding. With few short documents, a generation step takes
# as long as reading all weights; more documents share that cost.
MAX_BATCH = 32
MAX_BATCH_TOKENS = 32768
# By default, a progress bar is shown for more documents than this.
FEW = 8


@dataclass(frozen=True)
class GenerationSettings:
    """fairseq-generate's options by their names; None: fairseq's default.

    `forced_first_token` is the first symbol of every output, and `forced_eos` is whether an output of maximum length
    ends with `</s>` that does not count in its score (see LSGSequenceGenerator). Both belong to a checkpoint, and users
    do not set them.

    Raises:
        LSGError: a value is not allowed.
    """

    beam: int | None = None
    lenpen: float | None = None
    min_len: int | None = None
    max_len_b: int | None = None
    no_repeat_ngram_size: int | None = None
    forced_first_token: str | None = None
    forced_eos: bool | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            wanted, is_allowed = SETTINGS[name]
            if value is not None and not is_allowed(value):
                raise LSGError(f"{name} must be {wanted}, not {value!r:.80}")
        if self.min_len is not None and self.max_len_b is not None and self.min_len > self.max_len_b:
            raise LSGError(f"min_len ({self.min_len}) must not be greater than max_len_b ({self.max_len_b})")

    @classmethod
    def from_checkpoint(cls, stored: Mapping[str, Any]) -> GenerationSettings:
        """The settings of a checkpoint that are fields of this class; others are ignored."""
        return cls(**{f.name: stored[f.name] for f in fields(cls) if f.name in stored})

    def replaced(self, given: GenerationSettings) -> GenerationSettings:
        """A copy in which the settings that are not None in `given` are replaced."""
        return replace(self, **given._set_values())

    def as_arguments(self) -> Namespace:
        """The settings as task.build_generator reads them, without those that are None."""
        return Namespace(**self._set_values())

    def _set_values(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class BatchOptions:
    """How a generator works through texts.

    Args:
        batch_size: documents in a batch; None: up to MAX_BATCH.
        max_tokens: tokens in a batch, including padding; None: MAX_BATCH_TOKENS without batch_size, else unlimited.
        as_int8: see LSGSequenceGenerator.
        match_source_len: see LSGHubInterface.fill_mask.
        prefix: put in front of every text.
        keep_part: which part of a too long text is kept (data/kept_part.py); None: the checkpoint's.

    Raises:
        LSGError: a value is not allowed.
    """

    batch_size: int | None = None
    max_tokens: int | None = None
    as_int8: bool = False
    match_source_len: bool = False
    prefix: str = ""
    keep_part: str | None = None

    def __post_init__(self) -> None:
        check_part(self.keep_part, "keep_part")
        if not isinstance(self.match_source_len, bool):
            raise LSGError(f"match_source_len must be True or False, not {self.match_source_len!r:.80}")
        for name in ("batch_size", "max_tokens"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value)

    def size_of_batch(self, longest: int) -> int:
        """The number of documents in a batch whose longest has `longest` tokens: at least one."""
        most = self.batch_size or MAX_BATCH
        if self.batch_size is not None and self.max_tokens is None:
            return most
        return max(1, min(most, (self.max_tokens or MAX_BATCH_TOKENS) // longest))


def batches_by_length(lengths: Sequence[int], options: BatchOptions) -> Iterator[list[int]]:
    """Yield the places of a batch's documents, longest documents first, so that there is little padding.

    Documents without tokens are left out.
    """
    order = sorted((place for place, length in enumerate(lengths) if length), key=lambda place: -lengths[place])
    while order:
        size = options.size_of_batch(lengths[order[0]])
        yield order[:size]
        order = order[size:]


class BatchedGenerator:
    """Summarises texts with the task's generator, the one that fairseq-generate uses.

    Args:
        hub: the interface whose model, task and tokenizer are used.
        options: the sizes of batches, and how they are computed.
        languages: those of the texts and of their summaries, for models with language codes; None: the checkpoint's.

    Raises:
        LSGError: the model does not have such a language.
    """

    def __init__(
        self,
        hub: HubInterface,
        settings: GenerationSettings,
        options: BatchOptions | None = None,
        languages: tuple[str | None, str | None] = (None, None),
    ) -> None:
        self.hub, self.options = hub, options or BatchOptions()
        for code in languages:
            check_language(code)
        self.source_lang, self.target_lang = languages
        self.num_front = hub.task.sequence_format.num_front
        self.num_behind = hub.task.sequence_format.num_behind
        self.part = self.options.keep_part or hub.task.kept_part.of()
        arguments = settings.as_arguments()
        arguments.source_lang_token, arguments.target_lang_token = languages
        arguments.match_source_len = self.options.match_source_len
        more = {"as_int8": True} if self.options.as_int8 else None
        self.generator = hub.task.build_generator([hub.model], arguments, extra_gen_cls_kwargs=more)
        self.num_cut = self.tokens_lost = self.longest = 0
        self.is_estimated = False

    def stream(
        self,
        texts: Iterable[str],
        total: int | None = None,
        progress: bool | None = None,
        queries: Iterable[str] | None = None,
    ) -> Iterator[str]:
        """Yield the summaries in order, reading a window of texts at a time; warns at the end if texts were cut.

        Args:
            total: the number of texts, if it is known; for the progress bar.
            progress: whether there is one (default: for more than one batch).
            queries: one for each text, "" for none.

        Raises:
            LSGError: texts is not an iterable of strs, or as run_window.
        """
        check_switch("progress", progress)
        texts, queries = iterate(texts), repeat("") if queries is None else iterate(queries)
        shown = progress if progress is not None else total is None or total > (self.options.batch_size or FEW)
        with tqdm(total=total, desc="summaries", unit="", disable=not shown, file=sys.stderr) as bar:
            while window := list(islice(texts, WINDOW)):
                yield from self._summaries_of(window, list(islice(queries, len(window))), bar)
        self.report_cut()

    @in_one_sentence()
    def _summaries_of(self, window: Sequence[str], queries: Sequence[str], bar: tqdm) -> list[str]:
        summaries = [""] * len(window)
        for places, batch in self.run_window(window, queries=queries):
            for place, summary in zip(places, batch, strict=True):
                summaries[place] = summary
            bar.update(len(places))
        return summaries

    def run_window(
        self,
        texts: Sequence[str],
        is_done: Sequence[bool] | None = None,
        languages: Sequence[str] | None = None,
        queries: Sequence[str] | None = None,
    ) -> Iterator[tuple[list[int], list[str]]]:
        """Yield (places in the window, their summaries) for each batch, longest documents first.

        The batches do not depend on `is_done`, but those with only finished texts are skipped.

        Args:
            is_done: whether each text has its summary already.
            languages: of each text and, unless the generator has a target language, of its summary.
            queries: one for each text, "" for none.

        Raises:
            LSGError: a text is not a str, the model does not have a language, or a query leaves no room for its text.
        """
        codes = languages or [self.source_lang] * len(texts)
        questions = queries or [""] * len(texts)
        tokens = [self._encode(*each) for each in zip(texts, codes, questions, strict=True)]
        # Empty texts have no tokens and are in no batch: their summaries stay empty.
        for places in batches_by_length([len(ids) for ids in tokens], self.options):
            if is_done is None or not all(is_done[place] for place in places):
                of_batch = [languages[place] for place in places] if languages and not self.target_lang else None
                hypotheses = self._generate([tokens[place] for place in places], of_batch)
                yield places, [self.hub.decode_summary(best["tokens"]) for best, *_ in hypotheses]

    def best(self, tokens: Tensor, count: int) -> list[tuple[str, float]]:
        """The `count` best outputs for ids (n,), with their scores."""
        hypotheses = self._generate([self._cut(tokens)])[0]
        return [(self.hub.decode_whole(h["tokens"]), float(h["score"])) for h in hypotheses[:count]]

    def report_cut(self) -> None:
        """Warn once about all documents that were too long, and reset the counters."""
        if self.num_cut:
            about = "about " if self.is_estimated else ""
            longest, lost = f"{about}{self.longest}", f"{about}{self.tokens_lost}"
            warnings.warn(
                f"{self.num_cut} documents were cut to the {self.hub.max_source_tokens} tokens that are read, the "
                f"{self.part} (the longest has {longest}; {lost} tokens were not read): load the model with a larger "
                "max_source_positions to read them whole",
                stacklevel=3,
            )
        self.num_cut = self.tokens_lost = self.longest = 0
        self.is_estimated = False

    def _encode(self, text: str, language: str | None = None, query: str = "") -> Tensor:
        """The ids (n,) of a query and the kept part of a text; of a very long text, only that part is tokenised."""
        check_text(text)
        check_text(query)
        if not text.strip():
            return torch.empty(0, dtype=torch.long)
        front, behind = self.hub.ends(language)
        prefix = self.options.prefix
        if query.strip():
            # A pair with an empty text: the query and the separator.
            front = self._ids(prefix + query, language, "")[: -len(behind)]
            prefix = ""
        room = self.hub.max_source_tokens - len(front) - len(behind)
        if query and room < 1:
            raise LSGError(
                f"a query of {len(front)} tokens leaves no room for its document in the {self.hub.max_source_tokens} "
                "that are read: shorten it, or load the model with a larger max_source_positions"
            )
        pieces, number = pieces_to_read(
            prefix + text,
            room,
            self.part,
            lambda part: self._ids(part, language)[self.num_front : -self.num_behind],
        )
        ids = torch.cat(pieces)
        self.is_estimated |= number is not None
        self._note_cut((len(ids) if number is None else number) + len(front) + len(behind))
        return torch.cat([front, keep(ids, room, self.part), behind])

    def _ids(self, text: str, language: str | None, *more: str) -> Tensor:
        # A subclass may have an encode without source_lang.
        return self.hub.encode(text, *more) if language is None else self.hub.encode(text, *more, source_lang=language)

    def _cut(self, tokens: Tensor) -> Tensor:
        """Cut the text within ids (n,), but not the special tokens around it."""
        room = self.hub.max_source_tokens
        self._note_cut(len(tokens))
        front, content, behind = torch.tensor_split(tokens, [self.num_front, len(tokens) - self.num_behind])
        return torch.cat([front, keep(content, room - len(front) - len(behind), self.part), behind])

    def _note_cut(self, number: int) -> None:
        """Count a text of `number` tokens if it is too long."""
        room = self.hub.max_source_tokens
        if number > room:
            self.num_cut += 1
            self.tokens_lost += number - room
            self.longest = max(self.longest, number)

    def _generate(self, tokens: Sequence[Tensor], languages: Sequence[str] | None = None) -> list[list[dict[str, Any]]]:
        """The hypotheses for each source, best first; `languages` are those of the outputs."""
        hub = self.hub
        lengths = torch.tensor([len(ids) for ids in tokens])
        inputs = {"src_tokens": hub.collate(tokens).to(hub.device), "src_lengths": lengths.to(hub.device)}
        sample: dict[str, Any] = {"net_input": inputs}
        if languages:
            starts = decoder_starts(hub.task.sequence_format, hub.task.target_dictionary, languages)
            sample |= {name: rows.to(hub.device) for name, rows in starts.items()}
        try:
            return hub.task.inference_step(self.generator, [hub.model], sample)
        except AssertionError as error:  # raised by fairseq if no hypothesis was finished
            raise LSGError(
                "the model's scores are NaN, so nothing can be generated: use float32, or a checkpoint with finite "
                "weights"
            ) from error
