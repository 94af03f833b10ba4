"""Load diffusers' autoencoders."""
