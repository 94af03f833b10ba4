"""Open data: arrays, tables, images, and samples of the model's own prior."""
