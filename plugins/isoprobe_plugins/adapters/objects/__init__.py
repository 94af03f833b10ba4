"""Turn a user's own objects and functions into models."""
