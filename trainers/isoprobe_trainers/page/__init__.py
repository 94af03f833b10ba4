"""The page on what was reproduced at the paper's own schedule, made from committed records."""
