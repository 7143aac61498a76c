"""From a trained checkpoint to the model in the package."""
