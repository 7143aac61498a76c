"""What a summarizer is worth: baselines, answers in several variants, scores with intervals, example pages."""
