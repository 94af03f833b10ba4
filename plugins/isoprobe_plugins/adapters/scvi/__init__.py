"""Read saved models of scvi-tools, their pickles as inert records."""
