"""Choromanski et al. 2021, Figure 4: error of attention by positive and trigonometric features."""

import numpy as np

import randfeat as rf

q, k, v = np.random.default_rng(0).standard_normal((3, 512, 16))
kernel, options = rf.SoftmaxKernel(), {"num_features": [32, 64, 128, 256], "num_draws": 15, "rng": 0}
estimators = {
    f"{name}, {coupling}": cls(kernel, coupling=coupling)
    for name, cls in {"positive": rf.PositiveFeatures, "trigonometric": rf.TrigonometricFeatures}.items()
    for coupling in ("orthogonal", "independent")
}
curve = rf.montecarlo.error_curve(estimators, query=q, key=k, value=v, **options)
rf.plotting.plot_attention_error(curve, "median_error")
