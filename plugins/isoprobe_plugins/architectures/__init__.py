"""Build the networks of native checkpoints."""
