"""Regression on random features: sums over rows, block by block; ridge regression; Gaussian processes."""
