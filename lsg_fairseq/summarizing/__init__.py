"""lsg-summarize: documents in, summaries out, resumed where it was interrupted."""
