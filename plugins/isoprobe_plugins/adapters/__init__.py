"""Turn files and objects of every known form into models."""
