"""Add commands to ``isoprobe``."""
