"""Anomaly detectors on tables: what is compared, on what, and the page of the figures."""
