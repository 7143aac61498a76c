"""The models that the plugin registers; imported by name, since fairseq scans this folder only once."""

from lsg_fairseq.models import lsg_bart, lsg_pegasus, lsg_roberta  # noqa: F401
