"""Look at checkpoint files without running anything in them, and write the native form."""
