"""Texts -> summaries in batches of similar length, in order, with bounded memory."""

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

from lsg_fairseq.data.excerpts import pieces_to_read
from lsg_fairseq.data.generation_settings import SETTINGS
from lsg_fairseq.data.kept_part import check_part, keep
from lsg_fairseq.data.one_sentence import in_one_sentence
from lsg_fairseq.hub.base import HubInterface, check_language, check_switch, check_text, iterate
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.languages import decoder_starts
from lsg_fairseq.weights.limits import check_number

# Documents that are sorted by length among themselves; what is in memory at once, and what waits for its turn.
WINDOW = 128
# Without a batch size: so many documents, but not so many tokens, at once. A step of a generation takes the time of
# reading all weights where documents are few and short; more of them share it.
MAX_BATCH = 32
MAX_BATCH_TOKENS = 32768
# More documents than this have a progress bar, unless something is said about it.
FEW = 8


@dataclass(frozen=True)
class GenerationSettings:
    """fairseq-generate's options under their own names; None: fairseq's default.

    `forced_first_token` is the symbol that every output begins with and `forced_eos` whether an output of maximum
    length is closed for free (see LSGSequenceGenerator); they belong to a checkpoint and cannot be asked for.

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
            raise LSGError(f"min_len ({self.min_len}) must not be above max_len_b ({self.max_len_b})")

    @classmethod
    def from_checkpoint(cls, stored: Mapping[str, Any]) -> GenerationSettings:
        """Those of a checkpoint's settings that are known here."""
        return cls(**{f.name: stored[f.name] for f in fields(cls) if f.name in stored})

    def replaced(
        self,
        beam: int | None = None,
        lenpen: float | None = None,
        min_len: int | None = None,
        max_len_b: int | None = None,
        no_repeat_ngram_size: int | None = None,
    ) -> GenerationSettings:
        """The same with those that are given."""
        given = {
            "beam": beam,
            "lenpen": lenpen,
            "min_len": min_len,
            "max_len_b": max_len_b,
            "no_repeat_ngram_size": no_repeat_ngram_size,
        }
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def as_arguments(self) -> Namespace:
        """What task.build_generator reads."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return Namespace(**given)


@dataclass(frozen=True)
class BatchOptions:
    """How a generator works through texts, whatever they are.

    Args:
        batch_size: documents in a batch; None: up to MAX_BATCH of them.
        max_tokens: tokens in a batch, padding included; None: MAX_BATCH_TOKENS without a batch size, else any number.
        as_int8: see LSGSequenceGenerator.
        match_source_len: see LSGHubInterface.fill_mask.
        prefix: what is put in front of every text.
        keep_part: what is kept of a text that is too long (data/kept_part.py); None: the checkpoint's choice.

    Raises:
        LSGError: batch_size or max_tokens is out of range, or there is no such part.
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
        """How many documents of up to `longest` tokens go into a batch: one at least."""
        most = self.batch_size or MAX_BATCH
        if self.batch_size is not None and self.max_tokens is None:
            return most
        return max(1, min(most, (self.max_tokens or MAX_BATCH_TOKENS) // longest))


def batches_by_length(lengths: Sequence[int], options: BatchOptions) -> Iterator[list[int]]:
    """Places of the documents that have a token, batch by batch, the longest first: little is padded."""
    order = sorted((place for place, length in enumerate(lengths) if length), key=lambda place: -lengths[place])
    while order:
        size = options.size_of_batch(lengths[order[0]])
        yield order[:size]
        order = order[size:]


class BatchedGenerator:
    """Summarises texts with the task's own generator, which fairseq-generate uses too.

    Args:
        hub: the interface whose model, task and tokenizer are used.
        options: sizes of batches, and how they are computed.
        languages: of the texts and of their summaries, where the model has language codes; None: the checkpoint's own.

    Raises:
        LSGError: the model has no such language.
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
        """The summaries in order, a window of texts at a time; says once, at the end, what was cut.

        Raises:
            LSGError: texts is not an iterable of strs, or what run_window raises.
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
        """(places in the window, their summaries) batch by batch, the longest documents first.

        The batches depend on the texts alone; those whose texts are all done already are left out.

        Args:
            languages: of each text and, unless the generator has a language for them, of its summary.
            queries: of each text, "" for none.

        Raises:
            LSGError: a text is no str, the model has no such language, or a query leaves no room for its text.
        """
        codes = languages or [self.source_lang] * len(texts)
        questions = queries or [""] * len(texts)
        tokens = [self._encode(*each) for each in zip(texts, codes, questions, strict=True)]
        # Empty texts have no token, and keep an empty summary.
        for places in batches_by_length([len(ids) for ids in tokens], self.options):
            if is_done is None or not all(is_done[place] for place in places):
                of_batch = [languages[place] for place in places] if languages and not self.target_lang else None
                yield places, self._summaries([tokens[place] for place in places], of_batch)

    def best(self, tokens: Tensor, count: int) -> list[tuple[str, float]]:
        """The `count` best outputs for 1-d ids, with their scores."""
        hypotheses = self._generate([self._cut(tokens)])[0]
        return [(self.hub.decode_whole(h["tokens"]), float(h["score"])) for h in hypotheses[:count]]

    def report_cut(self) -> None:
        """One warning about all documents that were too long, if any."""
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
        """The ids of a query and of what can be read of a text; of a very long one, the rest is not even tokenised."""
        check_text(text)
        check_text(query)
        if not text.strip():
            return torch.empty(0, dtype=torch.long)
        front, behind = self.hub.ends(language)
        prefix = self.options.prefix
        if query.strip():
            # The beginning of a pair: the query and the separator.
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
        # Somebody's own interface may know nothing of languages.
        return self.hub.encode(text, *more) if language is None else self.hub.encode(text, *more, source_lang=language)

    def _cut(self, tokens: Tensor) -> Tensor:
        """Leave out what does not fit between what stands in front of a text and behind it."""
        room = self.hub.max_source_tokens
        self._note_cut(len(tokens))
        front, content, behind = torch.tensor_split(tokens, [self.num_front, len(tokens) - self.num_behind])
        return torch.cat([front, keep(content, room - len(front) - len(behind), self.part), behind])

    def _note_cut(self, number: int) -> None:
        """Count a text of `number` tokens, if that is too many."""
        room = self.hub.max_source_tokens
        if number > room:
            self.num_cut += 1
            self.tokens_lost += number - room
            self.longest = max(self.longest, number)

    def _summaries(self, tokens: Sequence[Tensor], languages: Sequence[str] | None) -> list[str]:
        return [self.hub.decode_summary(hypotheses[0]["tokens"]) for hypotheses in self._generate(tokens, languages)]

    def _generate(self, tokens: Sequence[Tensor], languages: Sequence[str] | None = None) -> list[list[dict[str, Any]]]:
        """The outputs for several sources, in languages of their own if they have any."""
        hub = self.hub
        lengths = torch.tensor([len(ids) for ids in tokens])
        inputs = {"src_tokens": hub.collate(tokens).to(hub.device), "src_lengths": lengths.to(hub.device)}
        sample: dict[str, Any] = {"net_input": inputs}
        if languages:
            starts = decoder_starts(hub.task.sequence_format, hub.task.target_dictionary, languages)
            sample |= {name: rows.to(hub.device) for name, rows in starts.items()}
        try:
            return hub.task.inference_step(self.generator, [hub.model], sample)
        except AssertionError as error:  # fairseq's, at the end of a search in which nothing was finished
            raise LSGError(
                "the model's scores are NaN, so nothing can be generated: use float32, or a checkpoint "
                "whose weights are in range"
            ) from error
