"""What estimators say of themselves: bounded features, and the names that papers give them."""

import inspect
from dataclasses import dataclass

import numpy as np
import pytest

import randfeat as rf

KEYS = np.random.default_rng(0).standard_normal((6, 3)) / 2


@dataclass(frozen=True)
class Stretched(rf.Independent):
    """Rows far out, to see how features grow there."""

    factor: float = 1.0

    def sample(self, num_rows, dim, *, rng, batch_shape=()):
        return self.factor * super().sample(num_rows, dim, rng=rng, batch_shape=batch_shape)


CASES = [
    (rf.PositiveFeatures, {}, False),
    (rf.HyperbolicFeatures, {}, False),
    (rf.TrigonometricFeatures, {}, True),
    (rf.OptimalPositiveFeatures, {"exponent": -0.05}, True),
    (rf.OptimalPositiveFeatures, {"exponent": 0.05}, False),
    (rf.OptimalPositiveFeatures, {"exponent": 0.0}, False),
    (rf.DenseExponentialFeatures, {"exponents": [-0.1, -0.05, -0.2]}, True),
    (rf.DenseExponentialFeatures, {"exponents": [-0.1, 0.0, -0.2]}, False),
    (rf.GeneralizedExponentialFeatures, {"parameter": -0.03 + 0.04j}, True),
    (rf.GeneralizedExponentialFeatures, {"parameter": 0.04j}, False),
    (rf.GeneralizedExponentialFeatures, {"parameter": 0.0, "sign": -1}, True),
    (rf.GeneralizedExponentialFeatures, {"parameter": 0.04j, "sign": -1}, False),
    (rf.ComplexExponentialFeatures, {"matrix": 1.2j}, True),
    (rf.ComplexExponentialFeatures, {"matrix": [1j, 1j, 1.0]}, False),
    (rf.ControlVariateFeatures, {"base": "trigonometric"}, False),
    (rf.ImportanceSampledFeatures, {"means": KEYS[:2], "variances": [1.3, 0.9]}, True),
    (rf.ImportanceSampledFeatures, {"means": KEYS[:2]}, False),
    (rf.PosteriorFeatures, {"anchors": KEYS[:2] / 10, "keys": KEYS / 10, "defensive_exponent": -0.1}, True),
    (rf.PosteriorFeatures, {"anchors": KEYS[:2] / 10, "keys": KEYS / 10}, False),
]


@pytest.mark.parametrize(("cls", "options", "bounded"), CASES)
def test_bounded_features_stay_bounded_along_rays(cls, options, bounded):
    """The largest of the features of one input over 500 rows, 10 and 1000 times as long as N(0, I) rows."""
    x = np.array([[2.0, -1.0, 1.5]])
    largest = {}
    for factor in (1.0, 10.0, 1000.0):
        estimator = cls(coupling=Stretched(factor), **options)
        features = estimator.draw(3, estimator.num_features(500, 3), rng=0).queries(x)
        with np.errstate(divide="ignore"):
            largest[factor] = np.max(features.log_scale + np.log(np.abs(features.values)))
    assert estimator.bounded is bounded
    assert (largest[1000.0] <= max(largest[1.0], largest[10.0]) + 0.1) is np.bool_(bounded)


def test_wrapped_estimators_are_bounded_where_their_base_is():
    for base in (rf.PositiveFeatures(), rf.TrigonometricFeatures()):
        assert rf.CenteredFeatures(base=base).bounded is base.bounded


def test_names_from_papers():
    """Every name belongs to one estimator, so that it can be looked up."""
    owners = [cls for cls in vars(rf).values() if isinstance(cls, type) and "acronyms" in vars(cls)]
    names = [name for cls in owners if not inspect.isabstract(cls) for name in cls.example().acronyms]
    assert len(names) == len(set(names))
    assert {"FAVOR+", "hyp+", "RFF", "FAVOR++", "FAVOR#", "GERF", "SMREG", "PoisRF", "GeomRF", "CE"} <= set(names)
