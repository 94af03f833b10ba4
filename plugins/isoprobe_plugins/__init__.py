"""Bring the adapters, metrics, analyses, data sources and architectures of isoprobe itself."""
