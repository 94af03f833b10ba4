"""Load Keras files, translated to torch."""
