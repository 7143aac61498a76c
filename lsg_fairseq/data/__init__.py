"""Documents and tokenizers: reading, checking, encoding, and writing without leaving half a file behind."""
