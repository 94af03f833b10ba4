"""The adapters, metrics, analyses, data sources and architectures that come with isoprobe."""
