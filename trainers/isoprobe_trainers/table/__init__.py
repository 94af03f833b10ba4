"""Train on a table of one's own, for scores of its rows."""
