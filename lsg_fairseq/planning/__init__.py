"""What memory does a training take? Computed from its flags before it runs."""
