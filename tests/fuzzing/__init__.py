"""Mutated inputs for every command, hub call and kind of file (`make fuzz`)."""
