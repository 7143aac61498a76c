"""How does Hugging Face say it? Folders, downloads, configurations, tensor names and generation settings."""
