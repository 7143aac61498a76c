"""What a new decoder's attention over the source begins with: it reads off which words it attends to.

Untrained values say nothing of the source, and learning to copy from it takes thousands of updates. A linear map from
an encoder's output to the embedding of the token at that place does most of it: as values, with an output projection
that changes nothing, it adds to a decoder state the embeddings of what is attended to, and these are also the rows of
the output projection.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from lsg_fairseq.tokenizers.base import DocumentTokenizer

LONGEST = 128  # tokens read of a text
RIDGE = 1e-3  # of the mean squared output, so that directions which hardly vary stay harmless


def embedding_reader(encoder_folder: Path, tokenizer: DocumentTokenizer, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
    """(weight [C,C], bias [C]) of the linear map from an encoder's last hidden states to its token embeddings."""
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(encoder_folder).eval()
    place = {token: row for row, token in enumerate(tokenizer.tokens)}
    table = encoder.get_input_embeddings().weight
    longest = min(LONGEST, encoder.config.max_position_embeddings - 2)
    hidden, embedded = [], []
    with torch.inference_mode():
        for text in texts:
            words = [tokenizer.bos, *tokenizer.encode(text)[:longest], tokenizer.eos]
            ids = torch.tensor([place[word] for word in words])
            hidden.append(encoder(ids[None]).last_hidden_state[0])
            embedded.append(table[ids])
        return fit_linear(torch.cat(hidden), torch.cat(embedded))


def fit_linear(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of outputs [N,C] on inputs [N,D]: weight [C,D] and bias [C], as nn.Linear has them."""
    means = inputs.double().mean(0), outputs.double().mean(0)
    x, y = inputs.double() - means[0], outputs.double() - means[1]
    gram = x.T @ x
    ridge = RIDGE * gram.diagonal().mean()
    weight = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), x.T @ y).T
    return weight.to(inputs.dtype), (means[1] - weight @ means[0]).to(inputs.dtype)
