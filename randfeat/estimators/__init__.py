"""Estimators: the laws of random features, one per file."""

from randfeat.estimators.base import Estimator
from randfeat.estimators.hyperbolic import HyperbolicFeatures
from randfeat.estimators.positive import PositiveFeatures
from randfeat.estimators.trigonometric import TrigonometricFeatures

__all__ = ["Estimator", "HyperbolicFeatures", "PositiveFeatures", "TrigonometricFeatures"]
