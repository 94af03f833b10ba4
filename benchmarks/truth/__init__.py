"""The bench of truth: how often the verdict on a model is right, on models whose fault is known."""
