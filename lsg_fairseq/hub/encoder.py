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
from lsg_fairseq.weights.upgrade_roberta import has_initial_lm_head

NEEDS_DECODER = ("summarize", "summarize_stream")


class LSGEncoderHubInterface(HubInterface):
    """An LSG-RoBERTa or LSG-BERT; methods mean what they mean in fairseq/models/roberta/hub_interface.py.

    Batches are padded on the right, as `collate` does.
    """

    def __getattr__(self, name: str) -> Any:
        if name in NEEDS_DECODER:
            raise AttributeError(f"an encoder-only model cannot summarise: .{name} needs a BART or Pegasus checkpoint")
        return super().__getattr__(name)

    @property
    def max_source_tokens(self) -> int:
        """The longest source that is read, `<s>` and `</s>` included; longer ones are refused."""
        return self.task.max_positions()

    @in_one_sentence()
    def extract_features(self, tokens: Tensor, return_all_hiddens: bool = False) -> Tensor | list[Tensor]:
        """The encoder's features (B,T,C) of (T,) or (B,T) ids: a row for each of them, none for the global tokens.

        With pool_with_global, the row of token 0 is global token 0's.

        Args:
            return_all_hiddens: return a list instead: the embeddings and the output of each layer.

        Raises:
            LSGError: tokens are longer than what is read, or a row begins with padding.
        """
        check_switch("return_all_hiddens", return_all_hiddens)
        tokens = self._readable(tokens)
        features, extra = self.model(tokens, features_only=True, return_all_hiddens=return_all_hiddens)
        return [state.transpose(0, 1) for state in extra["inner_states"]] if return_all_hiddens else features

    def head_input(self, tokens: Tensor) -> Tensor:
        """Features (B,T,C): RoBERTa's heads take the first row themselves."""
        return self.extract_features(tokens)

    @torch.no_grad()
    @in_one_sentence()
    def fill_mask(
        self, text: str | Sequence[str], topk: int = 5
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """The topk likeliest versions of a text with its one mask token filled in, each with its probability.

        Raises:
            LSGError: a text does not have exactly one mask token or is too long, topk is not possible, or the
                checkpoint came without a masked-LM head.
        """
        vocab_size = len(self.task.source_dictionary)
        if type(topk) is not int or not 1 <= topk <= vocab_size:
            raise LSGError(f"topk must be an integer from 1 to {vocab_size}, the size of the vocabulary, not {topk!r}")
        if has_initial_lm_head(self.model.state_dict()):
            raise LSGError("fill_mask needs a masked-LM head, which this checkpoint came without: load one that has it")
        with model_eval(self.model):
            filled = [self._fill(each, topk) for each in as_texts(text)]
        return filled[0] if isinstance(text, str) else filled

    def _fill(self, text: str, topk: int) -> list[tuple[str, float]]:
        tokens = self.encode(text)
        is_mask = tokens.eq(self._rows.get(self.tokenizer.mask, -1))
        if int(is_mask.sum()) != 1:
            # BERT's texts say [MASK], whatever its dictionary calls it.
            name = self.tokenizer.mask and self.tokenizer.decode([self.tokenizer.mask])
            raise LSGError(
                f"fill_mask of an encoder-only model needs the mask token {name!r} once in each text, not "
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
                f"this model reads {allowed} tokens, and got {tokens.size(1)}: load it with "
                f"max_source_positions={tokens.size(1)}, or give fewer"
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
        """The fairseq model's own forward: sources (B,T) -> logits (B,T,V), features or a head's logits, and extras."""
        return self.model(
            src_tokens,
            features_only=features_only,
            return_all_hiddens=return_all_hiddens,
            classification_head_name=classification_head_name,
            masked_tokens=masked_tokens,
        )
