"""Data sources: arrays, tables, images, and samples of the model's own prior."""
