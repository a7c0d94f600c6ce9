"""Cases of what is fitted to data: adapted estimators, rankings, predicted errors, regression, functions of a prior."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

import randfeat as rf
from experiments.benchmarks.same_numbers.catalogue import features_of, points
from experiments.benchmarks.same_numbers.results import Case, attempt

DIM, WIDTH, LENGTH, HEADS = 8, 32, 90, 2
LEVELS = ("centre", "balance", "exponent", "weighted", "posterior")  # as old checkouts spell them, too
SOFTMAX_ESTIMATORS: dict[str, Any] = {
    "positive": rf.PositiveFeatures(),
    "hyperbolic": rf.HyperbolicFeatures(coupling="independent"),
    "trigonometric": rf.TrigonometricFeatures(),
    "optimal positive": rf.OptimalPositiveFeatures(exponent=-0.05),
    "generalized": rf.GeneralizedExponentialFeatures(parameter=-0.03 + 0.04j, coupling="independent"),
    "geometric": rf.GeometricFeatures(),
}


def decision_cases(seed: int) -> Iterator[Case]:
    """Every case is a function of fixed queries, keys and values."""
    for level in LEVELS:
        for options in ({}, {"enable_gqa": True}, {"coupling": "independent", "anchor_scale": "rule"}):
            yield f"adapt {level} {options}", functools.partial(adapted, level, seed, options)
    yield "recommend", functools.partial(ranking, seed)
    for name, estimator in SOFTMAX_ESTIMATORS.items():
        for is_causal in (False, True):
            for what, compute in (("predicted error", prediction), ("diagnostics", diagnosis)):
                yield f"{what} {name} causal={is_causal}", functools.partial(compute, estimator, seed, is_causal)
        yield f"number of features {name}", functools.partial(needed_features, estimator, seed)
    for dtype in ("float32", "float64"):
        yield f"moments {dtype}", functools.partial(moments, seed, dtype)
        yield f"functions of a prior {dtype}", functools.partial(functions, seed, dtype)
    yield "ridge regression", functools.partial(ridge, seed)


def attention_data(seed: int, key_heads: int = HEADS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    query, key = points(seed, HEADS, LENGTH, DIM, scale=3.0) + 0.5, points(seed + 1, key_heads, LENGTH, DIM, scale=3.0)
    return query, key - 0.3, points(seed + 2, key_heads, LENGTH, 5)


def adapted(level: Any, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """The features of a map of the adapted estimator, which show all that was fitted."""
    query, key, _ = attention_data(seed, key_heads=1 if "enable_gqa" in options else HEADS)
    mask = points(seed, 1, LENGTH)[0] > -0.1
    estimator: Any = rf.adapt(query, key, level=level, num_features=WIDTH, key_mask=mask, rng=seed, **options)
    phi = estimator.draw(DIM, WIDTH, rng=seed)
    return {"arrays": dict(phi.arrays), "queries": features_of(phi.queries(query)), "keys": features_of(phi.keys(key))}


def ranking(seed: int) -> dict[str, Any]:
    found = rf.recommend(*attention_data(seed), num_features=WIDTH, num_queries=16, rng=seed)
    errors = [candidate.errors for candidate in found]
    return {"errors": errors, "average": found.average_error, "exact": found.exact_is_cheaper}


def prediction(estimator: Any, seed: int, is_causal: bool) -> Any:
    inputs, options = attention_data(seed), {"is_causal": is_causal, "key_mask": points(seed, 1, LENGTH)[0] > -0.1}
    return {
        str(scale): leading_order(
            attempt(rf.predict_attention_error, estimator, *inputs, WIDTH, scale=scale, **options)
        )
        for scale in (0.02, None)
    }


def leading_order(prediction: Any) -> Any:
    """The error by the delta method, which was the whole prediction in old checkouts."""
    return getattr(prediction, "leading_order", prediction)


def diagnosis(estimator: Any, seed: int, is_causal: bool) -> dict[str, Any]:
    query, key, value = attention_data(seed)
    found = rf.attention_diagnostics(query, key, estimator.draw(DIM, WIDTH, rng=seed), value, is_causal=is_causal)
    names = ("effective_features", "heaviest_share", "sign", "distance_to_mean")
    result = {"method": found.method.name, "predicted_error": leading_order(found.predicted_error)}
    return result | {name: getattr(found, name) for name in names}


def needed_features(estimator: Any, seed: int) -> Any:
    return rf.num_features_for(estimator, points(seed, 3, DIM, scale=0.5), points(seed + 1, 3, DIM, scale=0.5))


def moments(seed: int, dtype: str) -> dict[str, Any]:
    """Sums over rows given at once, in parts, and merged."""
    x, y = points(seed, 1500, DIM, dtype=dtype), points(seed + 1, 1500, 2, dtype=dtype)
    phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(DIM, 2 * WIDTH, rng=seed, like=x)
    found = rf.FeatureMoments.of(phi, x[:400], y[:400]).append(x[400:], y[400:])
    found = found.merge(rf.FeatureMoments.of(phi, 2 * x, y))
    names = ("gram", "cross", "feature_sum", "target_sum", "target_gram", "count")
    return {name: getattr(found, name) for name in names}


def functions(seed: int, dtype: str) -> dict[str, Any]:
    x, y = points(seed, 30, DIM, dtype=dtype), points(seed + 1, 30, DIM, dtype=dtype)[:, 0]
    estimator = rf.SpectralFeatures(rf.MaternKernel(smoothness=2.5))
    phi = estimator.draw(DIM, 2 * WIDTH, rng=seed, like=x, batch_shape=(2,))
    prior = rf.prior_functions(phi, num_samples=3, rng=seed)
    posterior = prior.given(x[:20], y[:20], noise_variance=0.01, rng=seed)
    return {"prior": prior(x), "posterior": posterior(x)}


def ridge(seed: int) -> dict[str, Any]:
    """Weights and penalties of scikit-learn's regressor; the error where scikit-learn is not installed."""
    from randfeat.integrations.sklearn import RandomFeatureRidge

    x, y = points(seed, 300, DIM), points(seed + 1, 300, 2)
    results = {}
    for alpha in ("gcv", 0.1, [0.01, 1.0, 10.0]):
        model = RandomFeatureRidge(n_components=40, alpha=alpha, random_state=seed).fit(x, y)
        results[str(alpha)] = [model.coef_, model.alpha_, model.noise_variance_, model.predict(x)]
    return results
