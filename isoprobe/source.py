"""A checkpoint on disk, looked at without running or unpickling anything."""
