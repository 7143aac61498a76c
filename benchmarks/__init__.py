"""Scripts that measure; what manpages/ shares with them is imported from here."""
