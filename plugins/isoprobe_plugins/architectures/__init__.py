"""Built-in architectures of native checkpoints."""
