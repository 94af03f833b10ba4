"""Measure distortions."""
