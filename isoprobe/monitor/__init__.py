"""Watches a model while it trains: the probe of an analysis at some steps, within a share of time.

The room holds no names of its own; import them from its modules, or from ``isoprobe``.
"""
