"""Undeclared weights: what the layers could be, and which reading the data bears out."""
