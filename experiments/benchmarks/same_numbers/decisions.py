"""Cases of what is fitted to data: adapted estimators, rankings, predicted errors, regression, functions of a prior."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import randfeat as rf
from experiments.benchmarks.same_numbers.catalogue import points
from experiments.benchmarks.same_numbers.digests import attempt
from randfeat import estimators, kernels

__all__ = ["decision_cases", "fit"]

DIM, WIDTH, LENGTH, HEADS = 8, 32, 90, 2
LEVELS = ({"centre", "center"}, {"balance"}, {"exponent", "dense"}, {"weighted"}, {"posterior"})  # old and new names


def decision_cases(seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every case is a function of fixed queries, keys and values."""
    for level in LEVELS:
        for options in ({}, {"enable_gqa": True}, {"coupling": "independent", "anchor_scale": "rule"}):
            yield f"adapt {min(level)} {options}", functools.partial(adapted, level, seed, options)
    yield "recommend", functools.partial(ranking, seed)
    for name, estimator in softmax_estimators().items():
        for is_causal in (False, True):
            yield (
                f"predicted error {name} causal={is_causal}",
                functools.partial(prediction, estimator, seed, is_causal),
            )
            yield f"diagnostics {name} causal={is_causal}", functools.partial(diagnosis, estimator, seed, is_causal)
        yield f"number of features {name}", functools.partial(needed_features, estimator, seed)
    for dtype in ("float32", "float64"):
        yield f"moments {dtype}", functools.partial(moments, seed, dtype)
        yield f"functions of a prior {dtype}", functools.partial(functions, seed, dtype)
    yield "ridge regression", functools.partial(ridge, seed)


def softmax_estimators() -> dict[str, Any]:
    """One of each kind of features of the softmax kernel."""
    return {
        "positive": estimators.PositiveFeatures(),
        "hyperbolic": estimators.HyperbolicFeatures(coupling="independent"),
        "trigonometric": estimators.TrigonometricFeatures(),
        "optimal positive": estimators.OptimalPositiveFeatures(exponent=-0.05),
        "generalized": estimators.GeneralizedExponentialFeatures(parameter=-0.03 + 0.04j, coupling="independent"),
        "geometric": estimators.GeometricFeatures(),
    }


def attention_data(seed: int, heads: int = HEADS, key_heads: int = HEADS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries and keys with means, and values."""
    query, key = points(seed, heads, LENGTH, DIM, scale=3.0) + 0.5, points(seed + 1, key_heads, LENGTH, DIM, scale=3.0)
    return query, key - 0.3, points(seed + 2, key_heads, LENGTH, 5)


def fit(level: set[str], query: np.ndarray, key: np.ndarray, **options: Any) -> Any:
    """`adapt` at a level whose name is one of these."""
    refused = ValueError("a level needs a name.")
    for name in sorted(level, reverse=True):
        try:
            return rf.adapt(query, key, level=name, **options)  # type: ignore[arg-type]
        except ValueError as error:
            refused = error
    raise refused


def adapted(level: set[str], seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """The features of a map of the adapted estimator, which show all that was fitted."""

    def compute() -> dict[str, Any]:
        query, key, _ = attention_data(seed, key_heads=1 if "enable_gqa" in options else HEADS)
        mask = points(seed, 1, LENGTH)[0] > -0.1
        estimator = fit(level, query, key, num_features=WIDTH, key_mask=mask, rng=seed, **options)
        phi = estimator.draw(DIM, WIDTH, rng=seed)
        queries, keys = phi.queries(query), phi.keys(key)
        return {
            "arrays": dict(phi.arrays),
            "queries": [queries.values, queries.log_scale],
            "keys": [keys.values, keys.log_scale],
        }

    return attempt(compute)


def ranking(seed: int) -> dict[str, Any]:
    """The errors of all candidates, best first."""

    def compute() -> dict[str, Any]:
        found = rf.recommend(*attention_data(seed), num_features=WIDTH, num_queries=16, rng=seed)
        return {
            "errors": [candidate.errors for candidate in found],
            "average": found.average_error,
            "exact": found.exact_is_cheaper,
        }

    return attempt(compute)


def prediction(estimator: Any, seed: int, is_causal: bool) -> Any:
    """The predicted error of attention, for short and long inputs."""
    query, key, value = attention_data(seed)
    options = {"is_causal": is_causal, "key_mask": points(seed, 1, LENGTH)[0] > -0.1}
    return {
        str(scale): attempt(rf.predict_attention_error, estimator, query, key, value, WIDTH, scale=scale, **options)
        for scale in (0.02, None)
    }


def diagnosis(estimator: Any, seed: int, is_causal: bool) -> dict[str, Any]:
    """The statistics of denominators, with values."""

    def compute() -> dict[str, Any]:
        query, key, value = attention_data(seed)
        phi = estimator.draw(DIM, WIDTH, rng=seed)
        found = rf.attention_diagnostics(query, key, phi, value, is_causal=is_causal)
        names = ("effective_features", "heaviest_share", "sign", "predicted_error", "distance_to_mean")
        return {"method": found.method.name, **{name: getattr(found, name) for name in names}}

    return attempt(compute)


def needed_features(estimator: Any, seed: int) -> Any:
    """Widths for three pairs."""
    x, y = points(seed, 3, DIM, scale=0.5), points(seed + 1, 3, DIM, scale=0.5)
    return attempt(rf.num_features_for, estimator, x, y)


def moments(seed: int, dtype: str) -> dict[str, Any]:
    """Sums over rows given at once, in parts, and merged."""

    def compute() -> dict[str, Any]:
        x, y = points(seed, 1500, DIM, dtype=dtype), points(seed + 1, 1500, 2, dtype=dtype)
        phi = estimators.TrigonometricFeatures(kernels.GaussianKernel()).draw(DIM, 2 * WIDTH, rng=seed, like=x)
        found = rf.FeatureMoments.of(phi, x[:400], y[:400]).append(x[400:], y[400:])
        found = found.merge(rf.FeatureMoments.of(phi, 2 * x, y))
        names = ("gram", "cross", "feature_sum", "target_sum", "target_gram", "count")
        return {name: getattr(found, name) for name in names}

    return attempt(compute)


def functions(seed: int, dtype: str) -> dict[str, Any]:
    """Values of functions before and after data."""

    def compute() -> dict[str, Any]:
        x, y = points(seed, 30, DIM, dtype=dtype), points(seed + 1, 30, DIM, dtype=dtype)[:, 0]
        estimator = estimators.SpectralFeatures(kernels.MaternKernel(smoothness=2.5))
        phi = estimator.draw(DIM, 2 * WIDTH, rng=seed, like=x, batch_shape=(2,))
        prior = rf.prior_functions(phi, num_samples=3, rng=seed)
        posterior = prior.given(x[:20], y[:20], noise_variance=0.01, rng=seed)
        return {"prior": prior(x), "posterior": posterior(x)}

    return attempt(compute)


def ridge(seed: int) -> dict[str, Any]:
    """Weights and penalties of scikit-learn's regressor; the error where scikit-learn is not installed."""

    def compute() -> dict[str, Any]:
        from randfeat.integrations.sklearn import RandomFeatureRidge

        x, y = points(seed, 300, DIM), points(seed + 1, 300, 2)
        results = {}
        for alpha in ("gcv", 0.1, [0.01, 1.0, 10.0]):
            model = RandomFeatureRidge(n_components=40, alpha=alpha, random_state=seed).fit(x, y)
            results[str(alpha)] = {
                "coef": model.coef_,
                "alpha": model.alpha_,
                "noise": model.noise_variance_,
                "predicted": model.predict(x),
            }
        return results

    return attempt(compute)
