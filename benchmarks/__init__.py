"""Scripts that measure, and nothing else."""
