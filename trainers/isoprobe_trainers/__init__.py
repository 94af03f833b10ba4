"""Repeat the paper's experiments: trainers, and the comparison with its published numbers."""
