"""Texts -> summaries in batches of similar length, in order, with bounded memory."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lsg_fairseq.data.generation_settings import SETTINGS
from lsg_fairseq.hub.base import HubInterface, check_text
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.languages import decoder_starts

# Documents that are sorted by length among themselves; what is in memory at once, and what waits for its turn.
WINDOW = 128
# Without a batch size: so many documents, but not so many tokens, at once.
MAX_BATCH = 8
MAX_BATCH_TOKENS = 32768


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
                raise LSGError(f"{name} must be {wanted}, not {value!r}")
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


class BatchedGenerator:
    """Summarises texts with the task's own generator, which fairseq-generate uses too.

    Args:
        hub: the interface whose model, task and tokenizer are used.
        batch_size: documents in a batch; None: up to MAX_BATCH of them and MAX_BATCH_TOKENS tokens with padding.
        match_source_len: see LSGHubInterface.fill_mask.
        languages: of the texts and of their summaries, where the model has language codes; None: the checkpoint's own.

    Raises:
        LSGError: batch_size is below 1, or the model has no such language.
    """

    def __init__(
        self,
        hub: HubInterface,
        settings: GenerationSettings,
        batch_size: int | None = None,
        match_source_len: bool = False,
        languages: tuple[str | None, str | None] = (None, None),
    ) -> None:
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise LSGError(f"batch_size must be an integer of at least 1, not {batch_size!r}")
        self.hub, self.batch_size = hub, batch_size
        self.source_lang, self.target_lang = languages
        self.num_behind = hub.task.sequence_format.num_behind
        arguments = settings.as_arguments()
        arguments.source_lang_token, arguments.target_lang_token = languages
        arguments.match_source_len = match_source_len
        self.generator = hub.task.build_generator([hub.model], arguments)
        self.num_cut = self.tokens_lost = self.longest = 0

    def stream(self, texts: Iterable[str], total: int | None = None, progress: bool | None = None) -> Iterator[str]:
        """The summaries in order, a window of texts at a time; says once, at the end, what was cut."""
        texts = iter(texts)
        shown = progress if progress is not None else total is None or total > (self.batch_size or MAX_BATCH)
        with tqdm(total=total, desc="summaries", unit="", disable=not shown, file=sys.stderr) as bar:
            while window := list(islice(texts, WINDOW)):
                summaries: list[str] = [""] * len(window)
                for places, batch in self.run_window(window):
                    for place, summary in zip(places, batch, strict=True):
                        summaries[place] = summary
                    bar.update(len(places))
                yield from summaries
        self.report_cut()

    def run_window(
        self, texts: Sequence[str], is_done: Sequence[bool] | None = None, languages: Sequence[str] | None = None
    ) -> Iterator[tuple[list[int], list[str]]]:
        """(places in the window, their summaries) batch by batch, the longest documents first.

        The batches depend on the texts alone; those whose texts are all done already are left out.

        Args:
            languages: of each text and, unless the generator has a language for them, of its summary.

        Raises:
            LSGError: a text is no str, or the model has no such language.
        """
        codes = languages or [self.source_lang] * len(texts)
        tokens = [self._encode(text, code) for text, code in zip(texts, codes, strict=True)]
        for places in self._batches([len(ids) for ids in tokens]):
            if is_done is None or not all(is_done[place] for place in places):
                of_batch = [languages[place] for place in places] if languages and not self.target_lang else None
                yield places, self._summaries([tokens[place] for place in places], of_batch)

    def best(self, tokens: Tensor, count: int) -> list[tuple[str, float]]:
        """The `count` best outputs for 1-d ids, with their scores."""
        hypotheses = self._generate([self._cut(tokens)])[0]
        return [(self.hub.decode(h["tokens"]), float(h["score"])) for h in hypotheses[:count]]

    def report_cut(self) -> None:
        """One warning about all documents that were too long, if any."""
        if self.num_cut:
            warnings.warn(
                f"{self.num_cut} documents were cut to the {self.hub.max_source_tokens} tokens that are read (the "
                f"longest has {self.longest}; {self.tokens_lost} tokens were not read): load the model with a larger "
                "max_source_positions to read them whole",
                stacklevel=3,
            )
        self.num_cut = self.tokens_lost = self.longest = 0

    def _encode(self, text: str, language: str | None) -> Tensor:
        check_text(text)
        return self._cut(self.hub.encode(text, language)) if text.strip() else torch.empty(0, dtype=torch.long)

    def _cut(self, tokens: Tensor) -> Tensor:
        """Leave out what does not fit in front of `</s>` and what is behind it."""
        room = self.hub.max_source_tokens
        if len(tokens) <= room:
            return tokens
        self.num_cut += 1
        self.tokens_lost += len(tokens) - room
        self.longest = max(self.longest, len(tokens))
        return torch.cat([tokens[: room - self.num_behind], tokens[-self.num_behind :]])

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of the documents that have a token, batch by batch; empty ones keep an empty summary."""
        order = sorted((place for place, length in enumerate(lengths) if length), key=lambda place: -lengths[place])
        while order:
            fitting = max(1, MAX_BATCH_TOKENS // lengths[order[0]])
            size = self.batch_size or min(MAX_BATCH, fitting)
            yield order[:size]
            order = order[size:]

    def _summaries(self, tokens: Sequence[Tensor], languages: Sequence[str] | None) -> list[str]:
        return [self.hub.decode(hypotheses[0]["tokens"]) for hypotheses in self._generate(tokens, languages)]

    def _generate(self, tokens: Sequence[Tensor], languages: Sequence[str] | None = None) -> list[list[dict[str, Any]]]:
        """The outputs for several sources, in languages of their own if they have any."""
        hub = self.hub
        lengths = torch.tensor([len(ids) for ids in tokens])
        inputs = {"src_tokens": hub.collate(tokens).to(hub.device), "src_lengths": lengths.to(hub.device)}
        sample: dict[str, Any] = {"net_input": inputs}
        if languages:
            starts = decoder_starts(hub.task.sequence_format, hub.task.target_dictionary, languages)
            sample |= {name: rows.to(hub.device) for name, rows in starts.items()}
        return hub.task.inference_step(self.generator, [hub.model], sample)
