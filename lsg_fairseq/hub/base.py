"""HubInterface: a model with its task and tokenizer, for converting text to ids and back and for classification."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from fairseq.data.data_utils import collate_tokens
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from lsg_fairseq.data.one_sentence import in_one_sentence
from lsg_fairseq.models.classification import register_head
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.languages import indices_of_symbols
from lsg_fairseq.tokenizers.fairseq_bpe import DocumentTokenizer, symbol_from_token, token_from_symbol
from lsg_fairseq.weights.families import FAMILIES
from lsg_fairseq.weights.limits import MAX_POSITIONS


class HubInterface(nn.Module):
    """A long-context model that is ready to use: fairseq's `.model` and `.task`, and methods that take text.

    It is in evaluation mode; `.train()`, `.to(device)`, `.half()` and `.bfloat16()` work as for any module.
    """

    def __init__(self, task: FairseqTask, model: BaseFairseqModel, tokenizer: DocumentTokenizer) -> None:
        super().__init__()
        self.task, self.model, self.tokenizer = task, model, tokenizer
        dictionary = task.source_dictionary
        self._labels: tuple[str, ...] = ()
        self._rows = {token: dictionary.index(symbol_from_token(token)) for token in tokenizer.tokens}
        self.eval()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    @property
    def max_source_tokens(self) -> int:
        """The longest source that is read, in tokens, including `<s>` and `</s>`."""
        raise NotImplementedError

    @in_one_sentence()
    def encode(
        self, sentence: str, *addl_sentences: str, no_separator: bool | None = None, source_lang: str | None = None
    ) -> torch.LongTensor:
        """The ids (n,) of a text with the special tokens of the model's source format; the text is never cut.

        Args:
            addl_sentences: more texts, for instance the hypothesis for a premise, each followed by `</s>`.
            no_separator: False puts another `</s>` in front of each of them (default: as in fairseq's interface of the
                family: `<s> a </s> b </s>` for BART, `<s> a </s> </s> b </s>` for RoBERTa; BERT as BART).
            source_lang: the language of the texts, for models with language codes (default: the checkpoint's).

        Raises:
            LSGError: a text is not a str, the model does not have this language, or it has language codes, but neither
                the call nor the checkpoint names one.
        """
        check_switch("no_separator", no_separator)
        front, behind = self.ends(source_lang)
        is_doubled = FAMILIES[self.model.family].doubled_separator if no_separator is None else not no_separator
        separator = [self.task.source_dictionary.eos()] * (2 if is_doubled else 1)
        ids: list[int] = []
        for number, text in enumerate((sentence, *addl_sentences)):
            check_text(text)
            ids += [*(separator if number else []), *(self._rows[token] for token in self.tokenizer.encode(text))]
        return torch.cat([front, torch.tensor(ids, dtype=torch.long), behind])

    def ends(self, source_lang: str | None = None) -> tuple[torch.LongTensor, torch.LongTensor]:
        """The ids in front of a text (n,) and behind it (m,); arguments and errors as for encode."""
        spoken = self.task.sequence_format.speaking(source_lang)
        return tuple(indices_of_symbols(self.task.source_dictionary, part) for part in spoken.ends("source"))

    @property
    def labels(self) -> list[str]:
        """The names of the classes of a converted checkpoint's head, in the order of predict's columns, or []."""
        return list(self._labels)

    def name_labels(self, names: Sequence[str]) -> None:
        """Set `labels`."""
        self._labels = tuple(names)

    @in_one_sentence()
    def decode(self, tokens: Tensor) -> str | list[str]:
        """The text of ids (n,), without `<s>`, `</s>`, `<pad>` and language codes.

        As in fairseq's interfaces, two `</s>` in a row separate texts, which are returned as a list (RoBERTa's pairs);
        texts with a single `</s>` between them (BART's and BERT's pairs) are returned as one.

        Raises:
            LSGError: tokens is not one-dimensional.
        """
        self._check_row(tokens)
        is_end = tokens.eq(self.task.target_dictionary.eos())
        ends = (is_end[1:] & is_end[:-1]).nonzero().flatten() + 1
        texts = [self.decode_whole(part) for part in tokens.tensor_split(ends.tolist())]
        return texts[0] if len(texts) == 1 else texts

    def decode_whole(self, tokens: Tensor) -> str:
        """As decode, but always one text."""
        return self.tokenizer.decode(self._tokens_of(tokens))

    def decode_summary(self, tokens: Tensor) -> str:
        """As decode_whole, but without any special tokens, like the outputs of transformers' pipelines."""
        return self.tokenizer.decode_plain(self._tokens_of(tokens))

    def _check_row(self, tokens: Tensor) -> None:
        check_tokens(tokens)
        if tokens.dim() != 1:
            raise LSGError(f"decode takes one sequence of ids, not a tensor of shape {list(tokens.shape)}: pass a row")

    def _tokens_of(self, tokens: Tensor) -> list[str]:
        self._check_row(tokens)
        dictionary = self.task.target_dictionary
        silent = {dictionary.bos(), dictionary.eos(), dictionary.pad()}
        return [token_from_symbol(dictionary[i]) for i in tokens.tolist() if i not in silent]

    @in_one_sentence()
    def collate(self, tokens: Sequence[Tensor], length: int | None = None) -> torch.LongTensor:
        """Stack sequences of ids (n,) as (B,T), padded on the right to the longest of them or to `length`.

        Raises:
            LSGError: tokens is not a list of tensors of ids, or length is not allowed.
        """
        if not isinstance(tokens, list | tuple) or not tokens:
            raise LSGError(f"collate takes a list of sequences of ids, not {tokens!r:.80}")
        for each in tokens:
            check_tokens(each)
        if length is not None and (type(length) is not int or not 0 <= length <= MAX_POSITIONS):
            raise LSGError(f"length must be an integer from 0 to {MAX_POSITIONS:,}, not {length!r:.80}")
        return collate_tokens(list(tokens), self.task.source_dictionary.pad(), pad_to_length=length)

    def extract_features(self, tokens: Tensor, return_all_hiddens: bool = False) -> Tensor | list[Tensor]:
        """Features (B,T,C) of ids (T,) or (B,T), or all hidden states."""
        raise NotImplementedError

    @in_one_sentence()
    def register_classification_head(self, name: str, num_classes: int, inner_dim: int | None = None) -> None:
        """Add an untrained classification head for `predict`.

        Raises:
            LSGError: the name is taken, or num_classes is below 1.
        """
        register_head(self.model, name, num_classes, inner_dim)

    @in_one_sentence()
    def predict(self, head: str, tokens: Tensor, return_logits: bool = False) -> Tensor:
        """Log-probabilities (B,K), float32, of the head's K classes for ids (T,) or (B,T), or their logits.

        Raises:
            LSGError: there is no such head, or extract_features or the head does not accept the tokens.
        """
        heads = getattr(self.model, "classification_heads", {})
        check_text(head)
        check_switch("return_logits", return_logits)
        if head not in heads:
            known = ", ".join(map(repr, heads)) or "none"
            raise LSGError(f"there is no classification head {head!r} (present: {known}): register one first")
        logits = heads[head](self.head_input(self.batch(tokens)))
        return logits if return_logits else nn.functional.log_softmax(logits, dim=-1, dtype=torch.float32)

    def head_input(self, tokens: Tensor) -> Tensor:
        """The input of a classification head for ids (B,T)."""
        raise NotImplementedError

    def batch(self, tokens: Tensor) -> Tensor:
        """Ids (T,) or (B,T) as (B,T) on the device of the weights.

        Raises:
            LSGError: they are not ids of this model's dictionary.
        """
        check_tokens(tokens)
        size = len(self.task.source_dictionary)
        if not 1 <= tokens.dim() <= 2 or not tokens.numel() or not 0 <= int(tokens.min()) <= int(tokens.max()) < size:
            raise LSGError(
                f"tokens must be a 1-d or 2-d tensor of ids from 0 to {size - 1}, not {tokens!r:.80}: encode a text"
            )
        return (tokens[None] if tokens.dim() == 1 else tokens).to(self.device)


def as_texts(text: str | Sequence[str]) -> list[str]:
    """One text or several as a list.

    Raises:
        LSGError: one is not a str.
    """
    texts = [text] if isinstance(text, str) else list(iterate(text))
    for each in texts:
        check_text(each)
    return texts


def iterate(texts: Iterable[str]) -> Iterator[str]:
    """An iterator over several texts.

    Raises:
        LSGError: texts is a str, or not an iterable.
    """
    try:
        if not isinstance(texts, str):
            return iter(texts)
    except TypeError:
        pass
    raise LSGError(f"a text must be a str, and several a list or another iterable of them, not {texts!r:.80}")


def check_text(text: object) -> None:
    """Refuse a text that is not a str.

    Raises:
        LSGError: it is not a str.
    """
    if not isinstance(text, str):
        raise LSGError(f"a text must be a str, not {type(text).__name__}: {text!r:.80}")


def check_switch(name: str, value: object) -> None:
    """Check that a setting is True, False or left out.

    Raises:
        LSGError: it is something else.
    """
    if not isinstance(value, bool | None):
        raise LSGError(f"{name} must be True or False, not {value!r:.80}")


def check_language(code: object) -> None:
    """Check that a language is a code or left out.

    Raises:
        LSGError: it is something else.
    """
    if not isinstance(code, str | None):
        raise LSGError(f"a language must be a code such as 'en_XX', not {code!r:.80}")


def check_tokens(tokens: object) -> None:
    """Refuse tokens that are not a tensor of integers.

    Raises:
        LSGError: they are not.
    """
    if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.is_complex():
        raise LSGError(f"tokens must be a tensor of integers, such as encode returns, not {tokens!r:.80}")
