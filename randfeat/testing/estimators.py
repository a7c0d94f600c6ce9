"""check_estimator: mean, variance, shapes, dtypes, seeds, backends and documentation of an estimator."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from randfeat._array import as_generator, as_host, cast, dtype_name
from randfeat._hints import hinted
from randfeat.estimators.base import Estimator
from randfeat.maps import FeatureMap
from randfeat.testing.moments import MomentCase, admissible, sample_pairs
from randfeat.testing.report import ROUNDING, Check, Report, bonferroni, conclude, possible_rows


@hinted
def check_estimator(
    estimator: Estimator,
    *,
    dim: int = 4,
    num_rows: Iterable[int] | None = None,
    rng: Any = 0,
    false_alarm: float = 1e-6,
    detectable_bias: float = 0.03,
    detectable_variance: float = 0.1,
    namespaces: Iterable[Any] = (),
) -> Report:
    """Check the mean, variance, shapes, dtypes, seeds, backends and documentation of an estimator.

    estimator : the estimator to check, under its own kernel and coupling.
    dim, num_rows : sizes to check at; by default 1, d-1, d, d+2 and 2d rows, or the nearest numbers possible.
    rng : seed; one seed always gives the same result.
    false_alarm : probability that a correct estimator fails (all statistical checks together, normal approximation).
    detectable_bias, detectable_variance : relative deviations of mean and variance that are caught with probability
        0.999; the number of draws follows from them. Variances are checked if the kurtosis of the estimate is below 30.
    namespaces : array namespaces (`torch`, `jax.numpy`, `array_api_strict`, ...) on which the same seed must give the
        same features.

    Raises AssertionError with the names of the failed checks; returns the report otherwise. If the variance has no
    closed form, only the mean is checked, with the standard error of the sample, and the report says so.
    """
    if not isinstance(estimator, Estimator):
        raise TypeError(f"expected an Estimator, got {type(estimator).__name__}.")
    widths = [estimator.num_features(rows, dim) for rows in possible_rows(estimator.coupling, dim, num_rows)]
    for width in widths:
        check_features(estimator, dim, width)
    for xp in namespaces:
        check_namespace(estimator, dim, widths[-1], xp)
    x, y = sample_pairs(estimator, dim)
    limit = bonferroni(false_alarm, 2 * len(widths) * len(x))
    checks: list[Check] = []
    notes: list[str] = []
    for width, generator in zip(widths, as_generator(rng).spawn(len(widths)), strict=True):
        case = MomentCase(estimator, x, y, width, limit, detectable_bias, detectable_variance)
        checks += case.run(generator, notes)
    report = conclude(repr(estimator), checks, limit, notes)
    check_documentation(estimator)
    return report


def check_documentation(estimator: Estimator) -> None:
    """Require a docstring that states shapes, what is exact, the error and the source; it may be inherited."""
    page = next((cls.__doc__ or "" for cls in type(estimator).__mro__ if has_page(cls)), "")
    missing = [word for word in ("Shapes:", "Exact", "Error", "Source") if word not in page]
    assert not missing, f"the docstring of {type(estimator).__name__} does not state {', '.join(missing)}"


def has_page(cls: type) -> bool:
    """Whether a class has a docstring of its own, other than the signature that `dataclass` writes for want of one."""
    return cls.__doc__ is not None and not cls.__doc__.startswith(f"{cls.__name__}(")


def check_features(estimator: Estimator, dim: int, width: int) -> None:
    """Check shapes, dtypes, seeds and signs, and that all ways to compute the estimate give the same number."""
    x, y = admissible(estimator, np.random.default_rng(0).standard_normal((2, 3, 5, dim)) / 4)
    phi, again, other = (estimator.draw(dim, width, rng=seed) for seed in (0, 0, 1))
    queries, keys = phi.queries(x), phi.keys(y)
    values, scale = queries.values, queries.log_scale
    subject = f"{estimator!r} with {width} features"
    assert values.shape == (3, 5, width), f"{subject}: values have shape {values.shape}, expected (3, 5, {width})"
    assert scale.shape in ((3, 5, 1), (3, 5, width)), f"{subject}: log_scale has shape {scale.shape}"
    assert np.array_equal(queries.to_array(), again.queries(x).to_array()), f"{subject}: one seed, two maps"
    assert not np.array_equal(queries.to_array(), other.queries(x).to_array()), f"{subject}: two seeds, one map"
    if estimator.positive:
        assert np.all(values > 0), f"{subject}: declared positive, but a value is not"
    gram = phi.estimate(x, y)
    plain = queries.to_array() @ np.swapaxes(keys.to_array(), -1, -2)
    size = np.sum(np.abs(queries.to_array()[..., :, None, :] * keys.to_array()[..., None, :, :]), axis=-1)
    assert np.all(np.abs(gram - plain) <= ROUNDING * size), f"{subject}: estimate is not φ(x)·φ(y)"
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    pairwise = phi.estimate_pairwise(x, y)
    size = np.diagonal(size, axis1=-2, axis2=-1)
    assert np.all(np.abs(pairwise - diagonal) <= ROUNDING * size), f"{subject}: estimate_pairwise differs from estimate"
    for dtype in (np.float16, np.float32, np.float64):
        output = phi.estimate(x.astype(dtype), y.astype(dtype))
        assert output.dtype == dtype, f"{subject}: {np.dtype(dtype)} in, {output.dtype} out"


def check_namespace(estimator: Estimator, dim: int, width: int, xp: Any) -> None:
    """Check that the same seed gives the same features in another array library, up to rounding.

    The tolerance is 4 units in the last place of the largest of: the value, 1, and the terms of the projection (rows of
    heavy-tailed laws are long). It applies to each factor where a feature is a product of projections.
    """
    x = admissible(estimator, np.random.default_rng(0).standard_normal((5, dim)) / 4)
    for dtype in ("float32", "float64"):
        x_other = xp.asarray(x.astype(dtype))
        x_numpy = cast(x, np.dtype(dtype))
        if dtype_name(x_other.dtype) != dtype:  # a library without this dtype, such as JAX in its default mode
            continue
        phi = estimator.draw(dim, width, rng=0, like=x_numpy)
        ours = phi.keys(x_numpy)
        theirs = estimator.draw(dim, width, rng=0, like=x_other).keys(x_other)
        assert type(theirs.values) is type(x_other), f"{xp.__name__} in, {type(theirs.values).__name__} out"
        for name in ("values", "log_scale"):
            a, b = as_host(getattr(ours, name), name), as_host(getattr(theirs, name), name)
            tolerance = (
                4 * num_factors(phi) * np.finfo(dtype).eps * np.maximum(np.abs(a), size_of_projections(phi, x_numpy))
            )
            assert np.all(np.abs(a - b) <= tolerance), (
                f"{estimator!r}: {name} differs on {xp.__name__} by more than 4 ulp"
            )


def num_factors(phi: FeatureMap) -> int:
    """Largest number of projections that one feature is a product of."""
    num_rows = phi.estimator.num_rows(phi.num_features, phi.dim)
    blocks = (math.ceil(array.shape[-2] / num_rows) for name, array in phi.arrays.items() if name.startswith("rows"))
    return max(1, sum(blocks))


def size_of_projections(phi: FeatureMap, x: np.ndarray) -> np.ndarray:
    """`max(1, Σ_l |x_l w_l|)` for each feature, (n, num_features): the scale of the rounding error of w·x."""
    rows = phi.arrays.get("rows")
    if rows is None or rows.shape[-1] != phi.dim or phi.num_features % rows.shape[-2]:
        return np.ones(1)
    size = np.abs(as_host(phi.estimator.kernel.unit(x), "x")) @ np.abs(as_host(rows, "rows")).T
    return np.maximum(1.0, np.tile(size, phi.num_features // rows.shape[-2]))
