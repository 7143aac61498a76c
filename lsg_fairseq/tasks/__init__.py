"""The fairseq tasks of this package; imported by name, because fairseq scans this folder only once."""

from lsg_fairseq.tasks import lsg_summarization  # noqa: F401
