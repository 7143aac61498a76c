"""A data set anyone can make: manual pages and their one-line descriptions (README.md)."""
