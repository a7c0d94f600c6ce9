"""Monte Carlo over draws: errors with confidence intervals, comparisons that share draws, and error curves."""

from randfeat.montecarlo.curve import ErrorCurve
from randfeat.montecarlo.curves import error_curve
from randfeat.montecarlo.measured import Measured
from randfeat.montecarlo.rotations import gram_variance
from randfeat.montecarlo.sampling import Comparison, ErrorSample, compare, sample_errors
from randfeat.montecarlo.tails import HeavyTailWarning

__all__ = [
    "Comparison",
    "ErrorCurve",
    "ErrorSample",
    "HeavyTailWarning",
    "Measured",
    "compare",
    "error_curve",
    "gram_variance",
    "sample_errors",
]
