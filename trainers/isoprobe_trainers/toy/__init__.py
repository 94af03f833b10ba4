"""Train and measure the toy models of Section 5.1."""
