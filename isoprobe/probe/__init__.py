"""Compute the quantities of one batch, beta, and what a decoder alone tells."""

from isoprobe.moved import names_of

#: what stood here when this package was one module
__getattr__ = names_of("isoprobe.probe.quantities", __name__)
