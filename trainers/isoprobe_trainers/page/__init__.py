"""Write the page on what was reproduced at the paper's own schedule, from committed records."""
