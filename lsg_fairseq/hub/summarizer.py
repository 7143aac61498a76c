"""LSGHubInterface: an encoder-decoder (BART, Pegasus) with its task and tokenizer, for use from Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor

from lsg_fairseq.data.one_sentence import in_one_sentence
from lsg_fairseq.hub.base import HubInterface, as_texts, check_language, check_switch
from lsg_fairseq.hub.batches import BatchedGenerator, BatchOptions, GenerationSettings
from lsg_fairseq.models.classification import final_token_states
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.languages import index_of_symbol
from lsg_fairseq.tokenizers.fairseq_bpe import DocumentTokenizer


class LSGHubInterface(HubInterface):
    """An LSG-BART or LSG-Pegasus; its methods follow fairseq/models/bart/hub_interface.py.

    Args:
        generation: the checkpoint's generation settings, by their names in fairseq-generate.
        prefix: the checkpoint's prefix, which summarize puts in front of every text.
    """

    def __init__(
        self,
        task: FairseqTask,
        model: BaseFairseqModel,
        tokenizer: DocumentTokenizer,
        generation: Mapping[str, Any] | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__(task, model, tokenizer)
        self.prefix = prefix
        self.generation_settings = GenerationSettings.from_checkpoint(generation or {})

    @property
    def max_source_tokens(self) -> int:
        """The longest source that is read, in tokens, including `<s>` and `</s>`; summarize cuts longer ones."""
        return self.task.max_positions()[0]

    @in_one_sentence()
    def summarize(
        self,
        text: str | Sequence[str],
        beam: int | None = None,
        lenpen: float | None = None,
        min_len: int | None = None,
        max_len_b: int | None = None,
        no_repeat_ngram_size: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        max_tokens: int | None = None,
        source_lang: str | None = None,
        target_lang: str | None = None,
        keep_part: str | None = None,
        query: str | Sequence[str] | None = None,
    ) -> str | list[str]:
        """Summarise one text, or several: a list of texts gives a list of summaries in the same order.

        Args:
            beam, lenpen, min_len, max_len_b, no_repeat_ngram_size: as for fairseq-generate (default: the checkpoint's,
                else fairseq's). min_len and max_len_b count tokens before `</s>`.
            batch_size: documents in a batch (default: up to 32, and up to 32,768 tokens with padding).
            max_tokens: tokens in a batch, including padding, to limit memory.
            progress: a progress bar on standard error (default: for more than one batch).
            source_lang, target_lang: languages of texts and summaries (mBART: "en_XX"; default: the checkpoint's).
            keep_part: what is kept of a text that is too long: "head", "tail", "ends" (the middle is cut out) or
                "middle" (default: what the checkpoint was trained on, else the head).
            query: a query for all texts, or one for each; read as encode(query, text), and never cut.

        Raises:
            LSGError: a setting is not allowed, text is neither a str nor strs, the model does not have a language, or
                it has language codes, but neither the call nor the checkpoint names one.
        """
        settings = GenerationSettings(beam, lenpen, min_len, max_len_b, no_repeat_ngram_size)
        options = BatchOptions(batch_size, max_tokens, prefix=self.prefix, keep_part=keep_part)
        generator = self._generator(settings, options, (source_lang, target_lang))
        texts = as_texts(text)
        queries = _queries_of(query, len(texts))
        summaries = list(generator.stream(texts, total=len(texts), progress=progress, queries=queries))
        return summaries[0] if isinstance(text, str) else summaries

    def summarize_stream(
        self,
        texts: Iterable[str],
        beam: int | None = None,
        lenpen: float | None = None,
        min_len: int | None = None,
        max_len_b: int | None = None,
        no_repeat_ngram_size: int | None = None,
        batch_size: int | None = None,
        progress: bool | None = None,
        max_tokens: int | None = None,
        source_lang: str | None = None,
        target_lang: str | None = None,
        keep_part: str | None = None,
        query: str | None = None,
    ) -> Iterator[str]:
        """As summarize, for any number of texts: reads a window of them at a time and yields summaries in order."""
        settings = GenerationSettings(beam, lenpen, min_len, max_len_b, no_repeat_ngram_size)
        options = BatchOptions(batch_size, max_tokens, prefix=self.prefix, keep_part=keep_part)
        generator = self._generator(settings, options, (source_lang, target_lang))
        return generator.stream(texts, progress=progress, queries=None if query is None else repeat(query))

    def _generator(
        self, settings: GenerationSettings, options: BatchOptions, languages: tuple[str | None, str | None]
    ) -> BatchedGenerator:
        return BatchedGenerator(self, self.generation_settings.replaced(settings), options, languages)

    @in_one_sentence()
    def extract_features(self, tokens: Tensor, return_all_hiddens: bool = False) -> Tensor | list[Tensor]:
        """The decoder's features (B,T,C) of ids (T,) or (B,T); its input is the same ids, shifted right by one.

        Args:
            return_all_hiddens: return a list of the decoder's embeddings and each layer's output instead, (B,T,C) each.

        Raises:
            LSGError: tokens are longer than the encoder or the decoder reads.
        """
        check_switch("return_all_hiddens", return_all_hiddens)
        tokens = self.batch(tokens)
        allowed = min(self.model.max_positions())
        if tokens.size(1) > allowed:
            raise LSGError(
                f"extract_features got {tokens.size(1)} tokens, but encoder and decoder of this model both read at "
                f"most {allowed}: load it with max_source_positions={tokens.size(1)}, or pass fewer"
            )
        spoken = self.task.sequence_format
        # The output would be the source, and in its language.
        start = index_of_symbol(self.task.target_dictionary, spoken.start(spoken.source_language))
        previous = torch.cat([tokens.new_full((len(tokens), 1), start), tokens[:, :-1]], dim=1)
        features, extra = self.model(tokens, None, previous, features_only=True, return_all_hiddens=return_all_hiddens)
        return [state.transpose(0, 1) for state in extra["inner_states"]] if return_all_hiddens else features

    def head_input(self, tokens: Tensor) -> Tensor:
        """The decoder's state (B,C) at the last `</s>` of each row.

        Raises:
            LSGError: a row of tokens has no `</s>`.
        """
        return final_token_states(self.extract_features(tokens), tokens, self.task.source_dictionary.eos())

    @in_one_sentence()
    def fill_mask(
        self,
        text: str | Sequence[str],
        topk: int = 5,
        match_source_len: bool = True,
        source_lang: str | None = None,
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """The topk most likely versions of a text with its mask tokens filled in, each with its score.

        Several texts give a list for each.

        Args:
            match_source_len: whether versions are as long as the text, that is, have one token for each mask.
            source_lang: the language of the text, for models with language codes (default: the checkpoint's).

        Raises:
            LSGError: a text has no mask token, or topk is below 1.
        """
        check_language(source_lang)
        mask = self.tokenizer.mask
        texts = as_texts(text)
        if mask is None or any(mask not in part for part in texts):
            raise LSGError(f"fill_mask needs the mask token {mask!r} in each text: put it where something is missing")
        first = "<s>" if self.task.sequence_format.target_bos else None
        settings = GenerationSettings(beam=topk, max_len_b=self.max_source_tokens, forced_first_token=first)
        language = source_lang or self.task.sequence_format.source_language or None
        options = BatchOptions(match_source_len=match_source_len)
        generator = BatchedGenerator(self, settings, options, (language, language))
        filled = [generator.best(self.encode(part, source_lang=language), topk) for part in texts]
        return filled[0] if isinstance(text, str) else filled

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        features_only: bool = False,
        return_all_hiddens: bool = True,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The fairseq model's forward: sources (B,T) and decoder inputs (B,S) -> logits (B,S,V), and extras."""
        return self.model(
            src_tokens,
            src_lengths,
            prev_output_tokens,
            features_only=features_only,
            return_all_hiddens=return_all_hiddens,
        )


def _queries_of(query: str | Sequence[str] | None, count: int) -> list[str] | None:
    """A query for each of `count` texts; None without queries.

    Raises:
        LSGError: their number is different.
    """
    if query is None or isinstance(query, str):
        return None if query is None else [query] * count
    queries = as_texts(query)
    if len(queries) != count:
        raise LSGError(f"there are {len(queries)} queries for {count} texts: pass one for each, or one for all")
    return queries
