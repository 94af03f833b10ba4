"""Keep means, moments and draws of samples that arrive in batches."""

from isoprobe.moved import names_of

#: what stood here when this package was one module
__getattr__ = names_of("isoprobe.statistics.moments", __name__)
