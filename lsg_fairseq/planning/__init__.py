"""What memory does a training take? Worked out from its flags, before it runs."""
