"""Models ready to use: finding, downloading and loading a checkpoint, and what the hub and lsg-summarize do with it."""
