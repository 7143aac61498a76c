"""LSGHubInterface: a model with its task and tokenizer, for use from Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.data.data_utils import collate_tokens
from torch import Tensor, nn

from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.models.classification import final_token_states, register_head
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.pretrained.batched_generation import BatchedGenerator, GenerationSettings
from lsg_fairseq.pretrained.hub_sources import SourceOptions, find_checkpoint
from lsg_fairseq.tokenization import symbol_from_token, token_from_symbol


class LSGHubInterface(nn.Module):
    """A long-context model that is ready to use: `.model` (fairseq), `.task`, and methods from text to text.

    It is in evaluation mode; `.train()`, `.to(device)`, `.half()` and `.bfloat16()` work as on any module.
    """

    def __init__(self, files: CheckpointFiles, overrides: Overrides | None = None) -> None:
        super().__init__()
        self.task, self.model, self.tokenizer = load_task_and_model(files, overrides or Overrides())
        self.generation_settings = GenerationSettings.from_checkpoint(files.generation)
        dictionary = self.task.source_dictionary
        self._rows = {token: dictionary.index(symbol_from_token(token)) for token in self.tokenizer.tokens}
        self.eval()

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, options: SourceOptions | None = None, overrides: Overrides | None = None
    ) -> LSGHubInterface:
        """Load whatever find_checkpoint knows.

        Raises:
            LSGError: the checkpoint cannot be found or loaded, or a setting is not allowed.
        """
        return cls(find_checkpoint(checkpoint, options or SourceOptions()), overrides)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def max_source_tokens(self) -> int:
        """The longest source that is read, `<s>` and `</s>` included; summarize cuts what is longer."""
        return self.task.max_positions()[0]

    def encode(self, text: str) -> torch.LongTensor:
        """The (n,) ids of a text with the specials of the model's source format; never cut, never a new symbol."""
        dictionary, bos = self.task.source_dictionary, self.task.sequence_format.source_bos
        ids = [self._rows[token] for token in self.tokenizer.encode(text)]
        return torch.tensor([*([dictionary.bos()] if bos else []), *ids, dictionary.eos()])

    def decode(self, tokens: Tensor) -> str:
        """The text of 1-d ids, without `<s>`, `</s>` and `<pad>`.

        Raises:
            LSGError: tokens has another number of dimensions.
        """
        if tokens.dim() != 1:
            raise LSGError(f"decode takes one sequence of ids, not a tensor of shape {list(tokens.shape)}: give a row")
        dictionary = self.task.target_dictionary
        silent = {dictionary.bos(), dictionary.eos(), dictionary.pad()}
        return self.tokenizer.decode(token_from_symbol(dictionary[i]) for i in tokens.tolist() if i not in silent)

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
    ) -> str | list[str]:
        """Summarise a text, or several: a list comes back in its order.

        Args:
            beam, lenpen, min_len, max_len_b, no_repeat_ngram_size: as for fairseq-generate; unset ones are the
                checkpoint's, else fairseq's. min_len and max_len_b count tokens before `</s>`.
            batch_size: documents at once (default: up to 8, fewer long ones).
            progress: a progress bar on standard error (default: for more than one batch).

        Raises:
            LSGError: a setting is not allowed, or text is neither a str nor strs.
        """
        settings = self.generation_settings.replaced(beam, lenpen, min_len, max_len_b, no_repeat_ngram_size)
        generator = BatchedGenerator(self, settings, batch_size)
        texts = [text] if isinstance(text, str) else list(text)
        summaries = list(generator.stream(texts, total=len(texts), progress=progress))
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
    ) -> Iterator[str]:
        """The same for any number of texts: takes in a window of them at a time, yields their summaries in order."""
        settings = self.generation_settings.replaced(beam, lenpen, min_len, max_len_b, no_repeat_ngram_size)
        return BatchedGenerator(self, settings, batch_size).stream(texts, progress=progress)

    def extract_features(self, tokens: Tensor, return_all_hiddens: bool = False) -> Tensor | list[Tensor]:
        """The decoder's features (B,T,C) of (T,) or (B,T) ids, when it reads the ids themselves, shifted by one.

        Args:
            return_all_hiddens: return a list instead: the decoder's input and the output of each of its layers.

        Raises:
            LSGError: tokens are longer than what encoder or decoder can read.
        """
        tokens = (tokens[None] if tokens.dim() == 1 else tokens).to(self.device)
        allowed = min(self.model.max_positions())
        if tokens.size(1) > allowed:
            raise LSGError(
                f"extract_features got {tokens.size(1)} tokens, and encoder and decoder of this model both read "
                f"{allowed}: load it with max_source_positions={tokens.size(1)}, or give fewer"
            )
        start = self.task.target_dictionary.index(self.task.sequence_format.decoder_start)
        previous = torch.cat([tokens.new_full((len(tokens), 1), start), tokens[:, :-1]], dim=1)
        features, extra = self.model(tokens, None, previous, features_only=True, return_all_hiddens=return_all_hiddens)
        return [state.transpose(0, 1) for state in extra["inner_states"]] if return_all_hiddens else features

    def register_classification_head(self, name: str, num_classes: int, inner_dim: int | None = None) -> None:
        """Add an untrained head for `predict`; what it sees is the state of the final decoder token.

        Raises:
            LSGError: the name is taken, or num_classes is below 1.
        """
        register_head(self.model, name, num_classes, inner_dim)

    def predict(self, head: str, tokens: Tensor, return_logits: bool = False) -> Tensor:
        """Log-probabilities (B,K) of the head's classes for (T,) or (B,T) ids, or their logits.

        Raises:
            LSGError: there is no such head, or a row of tokens has no `</s>`.
        """
        heads = getattr(self.model, "classification_heads", {})
        if head not in heads:
            known = ", ".join(map(repr, heads)) or "none"
            raise LSGError(f"there is no classification head {head!r} (present: {known}): register one first")
        tokens = (tokens[None] if tokens.dim() == 1 else tokens).to(self.device)
        states = final_token_states(self.extract_features(tokens), tokens, self.task.source_dictionary.eos())
        logits = heads[head](states)
        return logits if return_logits else nn.functional.log_softmax(logits, dim=-1, dtype=torch.float32)

    def fill_mask(
        self, text: str | Sequence[str], topk: int = 5, match_source_len: bool = True
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """The topk likeliest versions of a text with its mask tokens filled in, each with its score.

        Args:
            match_source_len: whether a version is as long as the text, that is, one token for each mask.

        Raises:
            LSGError: a text has no mask token, or topk is below 1.
        """
        mask = self.tokenizer.mask
        texts = [text] if isinstance(text, str) else list(text)
        if mask is None or any(mask not in part for part in texts):
            raise LSGError(f"fill_mask needs the mask token {mask!r} in each text: put it where something is missing")
        first = "<s>" if self.task.sequence_format.target_bos else None
        settings = GenerationSettings(beam=topk, max_len_b=self.max_source_tokens, forced_first_token=first)
        generator = BatchedGenerator(self, settings, match_source_len=match_source_len)
        filled = [generator.best(self.encode(part), topk) for part in texts]
        return filled[0] if isinstance(text, str) else filled

    def collate(self, tokens: Sequence[Tensor], length: int | None = None) -> torch.LongTensor:
        """(B,T) ids of several 1-d ones, padded on the right to the longest of them or to `length`."""
        return collate_tokens(list(tokens), self.task.source_dictionary.pad(), pad_to_length=length)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None,
        prev_output_tokens: Tensor,
        features_only: bool = False,
        return_all_hiddens: bool = True,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The fairseq model's own forward: sources (B,T) and decoder inputs (B,S) -> logits (B,S,V) and extras."""
        return self.model(
            src_tokens,
            src_lengths,
            prev_output_tokens,
            features_only=features_only,
            return_all_hiddens=return_all_hiddens,
        )
