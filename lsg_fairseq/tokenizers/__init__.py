"""Text to ids and back: tokenizer files, what surrounds a sequence, and the bpe that fairseq's commands use."""
