"""The small model in the package and how it was made (manpages/), a walkthrough from papers to ROUGE, and a demo."""
