"""torch.hub: the entries (hub/entries.py) and the interfaces that they return."""

from lsg_fairseq.hub.entries import *  # noqa: F403
