"""State what the paper and its extensions say: formulas, isometric map, detection, diagnosis."""
