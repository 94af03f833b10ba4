"""Show results to people: summary, comparison, figures, report.

Public are ``summary`` (text and JSON of a result), ``voice`` (its verdict), ``compare`` and
``matching`` (several results), ``plots`` (figures) and ``report`` (pages); the other modules serve
these alone.
"""
