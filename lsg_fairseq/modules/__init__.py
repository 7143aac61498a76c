"""LSG attention in torch alone. Importing the package fills both registries."""

from lsg_fairseq.modules import lsg_attention, sparse_tokens  # noqa: F401
