"""LSGEncoderHubInterface: an encoder-only model (RoBERTa, BERT) with its task and tokenizer, for use from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fairseq.utils import model_eval
from torch import Tensor

from lsg_fairseq.data.one_sentence import in_one_sentence
from lsg_fairseq.hub.base import HubInterface, as_texts, check_switch
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.upgrades import has_initial_lm_head

NEEDS_DECODER = ("summarize", "summarize_stream")


class LSGEncoderHubInterface(HubInterface):
    """An LSG-RoBERTa or LSG-BERT; its methods follow fairseq/models/roberta/hub_interface.py.

    Batches must be padded on the right, as `collate` does.
    """

    def __getattr__(self, name: str) -> Any:
        if name in NEEDS_DECODER:
            raise AttributeError(f"an encoder-only model cannot summarise: .{name} needs a BART or Pegasus checkpoint")
        return super().__getattr__(name)

    @property
    def max_source_tokens(self) -> int:
        """The longest source that is read, in tokens, including `<s>` and `</s>`; longer ones are refused."""
        return self.task.max_positions()

    @in_one_sentence()
    def extract_features(self, tokens: Tensor, return_all_hiddens: bool = False) -> Tensor | list[Tensor]:
        """The encoder's features (B,T,C) of ids (T,) or (B,T): one row per id, none for the global tokens.

        With pool_with_global, the first row is that of the first global token.

        Args:
            return_all_hiddens: return a list of the embeddings and each layer's output instead, (B,T,C) each.

        Raises:
            LSGError: tokens are longer than max_source_tokens, or a row begins with padding.
        """
        check_switch("return_all_hiddens", return_all_hiddens)
        tokens = self._readable(tokens)
        features, extra = self.model(tokens, features_only=True, return_all_hiddens=return_all_hiddens)
        return [state.transpose(0, 1) for state in extra["inner_states"]] if return_all_hiddens else features

    def head_input(self, tokens: Tensor) -> Tensor:
        """Features (B,T,C): RoBERTa's heads select the first row themselves."""
        return self.extract_features(tokens)

    @torch.no_grad()
    @in_one_sentence()
    def fill_mask(
        self, text: str | Sequence[str], topk: int = 5
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """The topk most likely versions of a text with its one mask token filled in, each with its probability.

        Several texts give a list for each.

        Raises:
            LSGError: a text does not have exactly one mask token or is too long, topk is not allowed, or the checkpoint
                has no masked-LM head.
        """
        vocab_size = len(self.task.source_dictionary)
        if type(topk) is not int or not 1 <= topk <= vocab_size:
            raise LSGError(f"topk must be an integer from 1 to {vocab_size}, the size of the vocabulary, not {topk!r}")
        if has_initial_lm_head(self.model.state_dict()):
            raise LSGError(
                "fill_mask needs a masked-LM head, which this checkpoint does not have: load one that has it"
            )
        with model_eval(self.model):
            filled = [self._fill(each, topk) for each in as_texts(text)]
        return filled[0] if isinstance(text, str) else filled

    def _fill(self, text: str, topk: int) -> list[tuple[str, float]]:
        tokens = self.encode(text)
        is_mask = tokens.eq(self._rows.get(self.tokenizer.mask, -1))
        if int(is_mask.sum()) != 1:
            # In texts for BERT it is [MASK], whatever its symbol in the dictionary.
            name = self.tokenizer.mask and self.tokenizer.decode([self.tokenizer.mask])
            raise LSGError(
                f"fill_mask of an encoder-only model needs the mask token {name!r} exactly once in each text, not "
                f"{int(is_mask.sum())} times: put it where one token is missing"
            )
        masked = is_mask[None].to(self.device)
        logits = self.model(self._readable(tokens), masked_tokens=masked)[0][0]
        found = logits.softmax(-1, dtype=torch.float32).topk(topk)
        rows, scores = found.indices.tolist(), found.values.tolist()
        return [
            (self.decode_whole(tokens.masked_fill(is_mask, row)), score)
            for row, score in zip(rows, scores, strict=True)
        ]

    def _readable(self, tokens: Tensor) -> Tensor:
        tokens, allowed = self.batch(tokens), self.max_source_tokens
        if tokens.size(1) > allowed:
            raise LSGError(
                f"this model reads at most {allowed} tokens, not {tokens.size(1)}: load it with "
                f"max_source_positions={tokens.size(1)}, or pass fewer"
            )
        return tokens

    def forward(
        self,
        src_tokens: Tensor,
        features_only: bool = False,
        return_all_hiddens: bool = False,
        classification_head_name: str | None = None,
        masked_tokens: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The fairseq model's forward: sources (B,T) -> logits (B,T,V), features (B,T,C) or a head's logits; extras."""
        return self.model(
            src_tokens,
            features_only=features_only,
            return_all_hiddens=return_all_hiddens,
            classification_head_name=classification_head_name,
            masked_tokens=masked_tokens,
        )
