"""Heavy tails: where a measured mean squared error cannot be trusted."""

from typing import Any

import numpy as np

from randfeat._hints import warn_caller
from randfeat.couplings.laws import NoClosedForm
from randfeat.estimators.base import Estimator

HEAVY = 30.0  # kurtosis beyond which squared errors are far from normal in the samples of practical size


class HeavyTailWarning(UserWarning):
    """Warning that a measured MSE of heavy-tailed errors is noisy and typically too low."""


def kurtosis_of_estimate(estimator: Estimator, x: Any, y: Any, *, num_features: int) -> np.ndarray:
    """Kurtosis `κ_m = 3 + (κ - 3)/m` of K̂ for m independent rows; κ is `estimator.row_kurtosis`."""
    return 3 + (estimator.row_kurtosis(x, y) - 3) / estimator.num_rows(num_features, np.shape(x)[-1])


def warn_if_heavy(estimator: Estimator, x: Any, y: Any, num_features: int, num_draws: int) -> None:
    """Warn if the tails are heavy (κ_m > HEAVY) and the draws too few to measure an MSE."""
    try:
        kurtoses = np.asarray(kurtosis_of_estimate(estimator, x, y, num_features=num_features))
    except NoClosedForm:
        return
    worst = np.unravel_index(np.argmax(kurtoses), kurtoses.shape)
    kurtosis = float(kurtoses[worst])
    precision = np.sqrt((kurtosis - 1) / num_draws)
    if kurtosis > HEAVY and precision > 0.3:
        place = ", ".join(map(str, worst))
        where = f" at pair {place}, the worst of {kurtoses.size} pairs" if kurtoses.size > 1 else ""
        warn_caller(
            f"the errors are heavy-tailed{where}: an MSE measured from {num_draws} draws has a relative standard error "
            f"of about {precision:.2g} and is typically too low (5 % would take {(kurtosis - 1) / 0.05**2:.1e} draws); "
            "use the closed form estimator.variance, or randfeat.montecarlo.gram_variance.",
            HeavyTailWarning,
        )
