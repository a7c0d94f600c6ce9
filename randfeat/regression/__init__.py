"""Regression on random features: sums over rows, block by block; ridge regression; Gaussian processes."""

from randfeat.regression.feature_moments import FeatureMoments
from randfeat.regression.gaussian_process import SampleFunctions, prior_functions

__all__ = ["FeatureMoments", "SampleFunctions", "prior_functions"]
