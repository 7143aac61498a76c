"""From Debian's package descriptions to a second, larger corpus of short texts."""
