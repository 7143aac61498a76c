"""From MiniLM and the corpora to a summarizer, by stages of stock fairseq-train."""
