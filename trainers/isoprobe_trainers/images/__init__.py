"""Train and measure the models of MNIST and CelebA."""
