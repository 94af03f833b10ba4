"""Find what undeclared weights' layers could be, and which reading the data bears out."""
