"""From manual pages to train, valid, test_seen and test_unseen."""
