"""The estimators and couplings that experiments compare, by label."""

import randfeat as rf

COUPLINGS: dict[str, rf.Coupling] = {
    "independent": rf.Independent(),
    "orthogonal": rf.Orthogonal(),
    "simplex": rf.Simplex(),
    "antithetic": rf.Antithetic(),
    "antithetic-orthogonal": rf.Antithetic(rf.Orthogonal()),
    "centered": rf.CenteredGaussian(),
    "constant norms": rf.Orthogonal(norms="constant"),
}
"""All of them leave each row N(0, I), but for the last: orthogonal rows of length √d, which bias the estimate."""

ESTIMATORS = ("positive", "hyp+", "trig pairs", "trig phase")

EVEN_ESTIMATORS = ("hyp+", "trig pairs")
"""Estimators that do not tell w from -w: antithetic rows are half as many rows for them, each counted twice."""


def make_estimator(estimator: str, coupling: str) -> rf.Estimator:
    """The estimator of the softmax kernel with these labels."""
    law = COUPLINGS[coupling]
    if estimator == "positive":
        return rf.PositiveFeatures(coupling=law)
    if estimator == "hyp+":
        return rf.HyperbolicFeatures(coupling=law)
    return rf.TrigonometricFeatures(coupling=law, variant="pairs" if estimator == "trig pairs" else "phase")


def num_features_allowed(estimator: rf.Estimator, num_features: int) -> bool:
    return estimator.nearest_num_features(num_features) == (num_features,)
