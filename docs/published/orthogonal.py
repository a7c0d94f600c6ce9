"""Yu et al. 2016, Figure 1: error of the Gaussian kernel with orthogonal, structured and quasi-random directions."""

import numpy as np

import randfeat as rf

x, y = np.random.default_rng(0).standard_normal((2, 100, 16)) / 2
estimators = {
    coupling: rf.TrigonometricFeatures(rf.GaussianKernel(length_scale=2.0), coupling=coupling)
    for coupling in ("independent", "halton", "hadamard", "orthogonal")
}
widths = [32 * ratio for ratio in range(1, 11)]
curve = rf.montecarlo.error_curve(estimators, x, y, num_features=widths, num_draws=40, rng=0)
ax = rf.plotting.plot_error_curve(curve, "mse")
