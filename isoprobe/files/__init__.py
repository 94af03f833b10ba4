"""Open strangers' files, one opener a kind, and count what is built from them."""
