"""Likhosherstov et al. 2023, Figure 1: logarithm of the relative variance against the scale of the inputs."""

import numpy as np
from matplotlib import pyplot as plt

import randfeat as rf

scales, (x, y) = np.geomspace(0.2, 3, 15), np.random.default_rng(0).standard_normal((2, 100, 16)) / 4
for cls in (rf.PositiveFeatures, rf.OptimalPositiveFeatures, rf.DenseExponentialFeatures, rf.TrigonometricFeatures):
    variances = []
    for s in scales:
        fit = {"query": s * x, "key": s * y, "scale": 1.0} if hasattr(cls, "fit") else {"kernel": rf.SoftmaxKernel()}
        estimator = getattr(cls, "fit", cls)(coupling="independent", **fit)
        variances.append(np.log(estimator.relative_variance(s * x, s * y, num_features=2)).mean())
    plt.semilogx(scales, variances, label=cls.__name__)
plt.gca().set(xlabel="scale of queries and keys", ylabel="mean logarithm of the relative variance")
plt.legend()
