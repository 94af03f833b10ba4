"""Train and measure the anomaly detectors of Section 5.3."""
