"""The public name of the tokenizers; they are in tokenizers/."""

from lsg_fairseq.tokenizers.fairseq_bpe import *  # noqa: F403
from lsg_fairseq.tokenizers.fairseq_bpe import __all__ as __all__
