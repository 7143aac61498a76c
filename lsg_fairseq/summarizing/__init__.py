"""lsg-summarize: documents in, summaries out; an interrupted run can be continued."""
