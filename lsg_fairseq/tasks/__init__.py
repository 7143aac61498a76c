"""The tasks that the plugin registers; imported by name, since fairseq scans this folder only once."""

from lsg_fairseq.tasks import lsg_summarization  # noqa: F401
