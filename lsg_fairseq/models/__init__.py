"""The registered models, imported by name: --user-dir does not scan this folder if the package is imported already."""

from lsg_fairseq.models import lsg_bart, lsg_pegasus, lsg_roberta  # noqa: F401
