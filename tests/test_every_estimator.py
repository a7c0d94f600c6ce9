"""What holds for every estimator of every kernel, composed ones included: values, batches, dtypes, moving, spoilt rows.

The statistical contract, for all of these, is in test_testing.py.
"""

import dataclasses
import inspect

import numpy as np
import pytest

import randfeat as rf
from randfeat.testing.moments import admissible
from tests.arrays import asarray, compiled, library, same_bits, to_numpy, traced
from tests.cases import OPEN, OTHERS

ALL = OTHERS + OPEN
DIM, ROWS = 4, 4


def width_of(estimator):
    """A width that the estimator can have in dimension 4."""
    rows = estimator.coupling.nearest_num_rows(ROWS, DIM)[-1]
    return estimator.nearest_num_features(rows * estimator.features_per_row, DIM)[-1]


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_is_a_value(estimator):
    assert estimator == dataclasses.replace(estimator)
    assert hash(estimator) == hash(dataclasses.replace(estimator))
    if "<array" not in repr(estimator):
        assert eval(repr(estimator), dict(vars(rf))) == estimator
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimator.coupling = None


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_one_map_per_head(xp, estimator):
    """A batch of maps is its maps side by side, compiled or not; keys have the queries' program where symmetric."""
    x = admissible(estimator, np.random.default_rng(0).standard_normal((2, 3, 5, DIM)) / 2)
    width = width_of(estimator)
    phi = estimator.draw(DIM, width, rng=0, like=asarray(xp, x), batch_shape=(3,))
    assert phi.batch_shape == (3,)
    for side in ("queries",) if estimator.symmetric and library(xp) == "jax" else ("queries", "keys"):
        together = to_numpy(compiled(xp, lambda x, side=side: getattr(phi, side)(x).to_array())(asarray(xp, x)))
        assert together.shape == (2, 3, 5, width)
        for head in range(3):
            arrays = {name: to_numpy(array)[head] for name, array in phi.arrays.items()}
            alone = getattr(rf.FeatureMap(estimator, DIM, width, arrays), side)(x[1, head]).to_array()
            np.testing.assert_allclose(together[1, head], alone, rtol=1e-11, atol=1e-11 * np.max(np.abs(alone)))


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_moving_and_redrawing(xp, estimator):
    x = asarray(xp, np.full((2, DIM), 0.3), "float32")
    phi = estimator.draw(DIM, width_of(estimator), rng=0, batch_shape=(2,))
    moved = phi.to(x)
    drawn = estimator.draw(DIM, phi.num_features, rng=0, like=x, batch_shape=(2,))
    redrawn = moved.redraw(0)
    assert repr(redrawn) == repr(drawn) == repr(moved)
    assert set(moved.arrays) == set(redrawn.arrays) == set(drawn.arrays)
    for name, array in drawn.arrays.items():
        assert same_bits(array, moved.arrays[name])
        assert same_bits(array, redrawn.arrays[name])
    for phi in (moved, redrawn, drawn):
        assert traced(xp, lambda x, phi=phi: phi.queries(x).values, x).dtype == x.dtype


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_spoilt_rows_stay_alone(estimator):
    x = admissible(estimator, np.random.default_rng(1).standard_normal((4, DIM)) / 2)
    phi = estimator.draw(DIM, width_of(estimator), rng=0)
    clean = phi.estimate(x, x)
    spoilt = x.copy()
    spoilt[2, 1] = np.nan
    with np.errstate(all="ignore"):
        estimate = phi.estimate(spoilt, spoilt)
    keep = np.ix_([0, 1, 3], [0, 1, 3])
    np.testing.assert_allclose(estimate[keep], clean[keep], rtol=1e-12, atol=1e-12 * np.max(np.abs(clean)))
    estimate[keep] = np.nan
    assert np.all(np.isnan(estimate))


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_zero_vectors_and_wrong_dimensions(estimator):
    phi = estimator.draw(DIM, width_of(estimator), rng=0)
    zero = np.zeros((2, DIM))
    assert np.all(np.isfinite(phi.estimate(zero, zero)))
    assert np.all(np.isfinite(estimator.kernel(zero, zero)))
    with pytest.raises(ValueError, match=f"dimension {DIM + 1}, but the features were drawn for {DIM}"):
        phi.queries(np.zeros((2, DIM + 1)))


@pytest.mark.parametrize("estimator", OTHERS, ids=repr)
def test_closed_forms_broadcast(estimator):
    x, y = np.full((5, 1, DIM), 0.2), np.arange(4.0)[:, None] * np.ones(DIM) / 8
    for closed in (
        estimator.mean(x, y, num_features=width_of(estimator)),
        estimator.variance(x, y, num_features=width_of(estimator)),
        estimator.mse(x, y, num_features=width_of(estimator)),
    ):
        assert closed.shape == (5, 4)
        assert closed.dtype == np.float64
        assert np.all(np.isfinite(closed))
    with pytest.raises(ValueError, match="share their last dimension, got 4 and 5"):
        estimator.variance(np.zeros(DIM), np.zeros(DIM + 1), num_features=width_of(estimator))


def fitting_methods():
    """Class methods of estimators that take a kernel, with arguments to call them."""
    x = np.random.default_rng(0).uniform(0.2, 1.0, (2, 5, 3))
    for name in rf.estimators.__all__:
        for method, thing in inspect.getmembers(getattr(rf.estimators, name), inspect.ismethod):
            optional = {"kernel", "coupling"} & set(inspect.signature(thing).parameters)
            if optional:
                arguments = {"multipolar": x[:1], "for_pair": x[:, 0]}.get(method, x)
                yield pytest.param(thing, arguments, optional, id=f"{name}.{method}")


@pytest.mark.parametrize(("method", "arguments", "optional"), list(fitting_methods()))
def test_no_kernel_and_no_coupling_mean_the_softmax_kernel_and_orthogonal_rows(method, arguments, optional):
    plain = {"kernel": rf.SoftmaxKernel(), "coupling": "orthogonal"}
    for options in ({}, dict.fromkeys(optional), {name: plain[name] for name in optional}):
        fitted = method(*arguments, **options)
        assert fitted == method(*arguments)
        assert fitted.kernel == rf.SoftmaxKernel()
        assert not fitted.has_coupling or fitted.coupling == rf.Orthogonal()
