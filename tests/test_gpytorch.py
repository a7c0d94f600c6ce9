"""The page for users of GPyTorch says what GPyTorch and BoTorch compute, where they are installed."""

import importlib.util

import numpy as np
import pytest

from experiments.benchmarks import gaussian_processes as page

pytestmark = [
    pytest.mark.skipif(not importlib.util.find_spec("botorch"), reason="pip install gpytorch botorch"),
    pytest.mark.filterwarnings("ignore"),  # of their own imports
]


def test_kernels_and_features_are_the_same():
    eps = np.finfo(float).eps
    for name, (theirs, ours) in page.kernels().items():
        assert page.kernel_difference(theirs, ours) < 16 * eps, name  # of distances and an exponential, factor 2.5
    assert page.feature_difference() < 16 * eps


def test_functions_of_both_have_the_moments_of_the_exact_posterior():
    """With S independent functions a mean errs by 1/√S of the deviation, the deviation by 1/√2S; seeds are fixed."""
    num_maps, num_samples = 4, 1000
    spreads = page.posterior_spreads(num_maps, num_samples)
    for name, (mean, deviation) in spreads.items():
        assert mean < 2 / np.sqrt(num_samples), name  # twice the standard error
        assert deviation < 0.15, name  # 1024 shared features, 0.06 on average over maps
    assert spreads["a map of 64 for each function"][1] < 2 / np.sqrt(2 * num_samples)
