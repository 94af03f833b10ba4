"""Analyse what a pass has seen, as named arrays."""
