"""Write and read result files."""
