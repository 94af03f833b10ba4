"""Load weights that somebody declared: by a TOML file beside them, or by a known layout."""
