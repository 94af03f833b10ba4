"""Offer the trainings as commands."""
