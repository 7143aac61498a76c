"""Documents: reading, checking and encoding them, and writing folders and files completely or not at all."""
