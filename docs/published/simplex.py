"""Reid et al. 2023, Figure 3: error of positive features with i.i.d., orthogonal and simplex directions."""

import numpy as np

import randfeat as rf

x, y = np.random.default_rng(0).standard_normal((2, 200, 16)) / 8
estimators = {coupling: rf.PositiveFeatures(coupling=coupling) for coupling in ("independent", "orthogonal", "simplex")}
curve = rf.montecarlo.error_curve(estimators, x, y, num_features=[16, 32, 48, 64], num_draws=500, rng=0)
rf.plotting.plot_error_curve(curve, "mse")
