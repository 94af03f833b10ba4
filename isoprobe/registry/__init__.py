"""Find plugins by kind and name."""

from isoprobe.moved import names_of

#: what stood here when this package was one module
__getattr__ = names_of("isoprobe.registry.lookup", __name__)
