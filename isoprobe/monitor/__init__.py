"""Watch a model while it trains: the probe of an analysis at some steps, in a share of the time.

The room holds no names of its own; import them from its modules, or from ``isoprobe``.
"""
