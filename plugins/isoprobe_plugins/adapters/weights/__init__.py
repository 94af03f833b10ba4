"""Read named tensors out of any weights file, and put them into chains of layers."""
