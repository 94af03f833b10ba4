"""Turn opened data into batches that fit a model."""

from isoprobe.moved import names_of

#: what stood here when this package was one module
__getattr__ = names_of("isoprobe.data.batches", __name__)
