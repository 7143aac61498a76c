"""What must a state dict look like? Families, sizes, position tables, and bringing older checkpoints up to date."""
