"""Checkpoints in the layouts that public repositories use, made by `make_layouts.py`."""
