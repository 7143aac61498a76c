"""Checkpoints in and out: Hugging Face and fairseq files, their configurations, and the converted folder."""
