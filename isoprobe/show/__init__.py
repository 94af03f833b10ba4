"""Show results to people: summary, comparison, figures, report."""
