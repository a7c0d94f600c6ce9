"""Features: sums and products of kernels, and inner products that carry their scale."""

import dataclasses

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, compiled, eps_of, same_bits, to_numpy

SCALES = [0.0, 300.0, -300.0]


def signed_features(rng, n, f, *, scale=0.0, per_feature=False, lead=()):
    """Random features with scales within 3 of `scale`: their values, and the scales (..., n, 1) or (..., n, f)."""
    values = rng.standard_normal((*lead, n, f))
    log = scale + rng.uniform(-3, 3, (*lead, n, f if per_feature else 1))
    return values, log


def wide(values, log):
    """The plain features in long double, whose exponents reach e^11000."""
    return np.asarray(values, np.longdouble) * np.exp(np.asarray(log, np.longdouble))


def make(xp, values, log, dtype="float64"):
    return rf.Features(asarray(xp, values, dtype), asarray(xp, log, dtype))


def rounding(a, b, terms):
    """Bound on the error of the inner products of two features: f terms, exponents of this size, a few functions."""
    return (a.shape[-1] + 4 * terms + 32) * eps_of("float64") * (np.abs(a) @ np.swapaxes(np.abs(b), -1, -2))


long_double_is_wide = pytest.mark.skipif(
    np.finfo(np.longdouble).maxexp < 16384, reason="needs an 80-bit long double as reference"
)


@long_double_is_wide
@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_dot_and_pairwise(xp, rng, scale, per_feature):
    """Inner products of features of any size, as long as the products are in range."""
    a = signed_features(rng, 4, 6, scale=scale, per_feature=per_feature, lead=(2,))
    b = signed_features(rng, 4, 6, scale=-scale / 2, lead=(2,))
    expected = wide(*a) @ np.swapaxes(wide(*b), -1, -2)
    bound = rounding(wide(*a), wide(*b), 310)
    left, right = make(xp, *a), make(xp, *b)
    assert np.all(np.abs(to_numpy(left.dot(right)) - expected) <= bound)
    pairs = to_numpy(left.pairwise(right))
    assert np.all(np.abs(pairs - np.diagonal(expected, axis1=-2, axis2=-1)) <= np.diagonal(bound, axis1=1, axis2=2))
    assert np.max(bound / np.abs(expected)) < 1e-9
    assert left.num_features == 6


@long_double_is_wide
@pytest.mark.parametrize("scales", [(0.0, 0.0), (300.0, -300.0), (-300.0, 300.0), (150.0, 150.0)], ids=str)
@pytest.mark.parametrize("per_feature", [(False, False), (True, False), (True, True)], ids=str)
def test_concatenate_and_tensor_product(xp, rng, scales, per_feature):
    """Kernels add where features concatenate and multiply where they tensor, whatever the sizes of the two."""
    a, a2 = (signed_features(rng, n, 3, scale=scales[0], per_feature=per_feature[0]) for n in (4, 5))
    b, b2 = (signed_features(rng, n, 4, scale=scales[1], per_feature=per_feature[1]) for n in (4, 5))
    first, second = wide(*a) @ wide(*a2).T, wide(*b) @ wide(*b2).T
    error = rounding(wide(*a), wide(*a2), 610), rounding(wide(*b), wide(*b2), 610)
    rows = [(make(xp, *left), make(xp, *right)) for left, right in ((a, b), (a2, b2))]
    together = [rf.features.concatenate(*pair) for pair in rows]
    assert together[0].num_features == 7
    actual = to_numpy(together[0].dot(together[1]))
    assert np.all(np.abs(actual - (first + second)) <= error[0] + error[1])
    # A small part counts where it stands alone: drop the other.
    crossed = [rf.features.tensor_product(*pair) for pair in rows]
    assert crossed[0].num_features == 12
    sizes = np.abs(wide(*a)) @ np.abs(wide(*a2)).T, np.abs(wide(*b)) @ np.abs(wide(*b2)).T
    actual = to_numpy(crossed[0].dot(crossed[1]))
    assert np.all(np.abs(actual - first * second) <= error[0] * sizes[1] + sizes[0] * error[1])
    assert np.all(np.isfinite(actual))
    partner = rf.features.tensor_product(make(xp, *(x[:4] for x in a2)), make(xp, *(x[:4] for x in b2)))
    pairs = to_numpy(crossed[0].pairwise(partner))
    np.testing.assert_allclose(pairs, np.diagonal(actual), rtol=1e-9)


def test_concatenate_keeps_parts_of_very_different_size(xp):
    """A part 600 below the other in the exponent is there to the last digit where the other vanishes."""
    big, small = ([[1.0, 1.0]], [[300.0]]), ([[2.0]], [[-300.0]])
    nothing = ([[0.0, 0.0]], [[0.0]])
    both = rf.features.concatenate(make(xp, *big), make(xp, *small))
    probe = rf.features.concatenate(make(xp, *nothing), make(xp, [[1.0]], [[290.0]]))
    np.testing.assert_allclose(to_numpy(both.dot(probe)), 2 * np.exp(-10.0), rtol=1e-12)


def test_many_parts(xp, rng):
    parts = [signed_features(rng, 3, f) for f in (1, 2, 3)]
    together = rf.features.concatenate(*(make(xp, *part) for part in parts))
    plain = np.concatenate([values * np.exp(log) for values, log in parts], axis=-1)
    np.testing.assert_allclose(to_numpy(together.to_array()), plain, rtol=1e-14)


def test_features_of_sums_and_products_of_kernels(xp, rng):
    """The estimate of a sum is the sum of the estimates, draw by draw; of a product, the product."""
    x, y = rng.standard_normal((2, 5, 3))
    x, y = asarray(xp, x), asarray(xp, y)
    one = rf.PositiveFeatures().draw(3, 4, rng=0, like=x)
    two = rf.TrigonometricFeatures(rf.GaussianKernel(2.0)).draw(3, 6, rng=1, like=x)

    def estimates(x, y):
        queries, keys = (one.queries(x), two.queries(x)), (one.keys(y), two.keys(y))
        total = rf.features.concatenate(*queries).dot(rf.features.concatenate(*keys))
        product = rf.features.tensor_product(*queries).dot(rf.features.tensor_product(*keys))
        return one.estimate(x, y), two.estimate(x, y), total, product

    a, b, total, product = map(to_numpy, compiled(xp, estimates)(x, y))
    np.testing.assert_allclose(to_numpy(total), a + b, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(to_numpy(product), a * b, rtol=1e-13, atol=1e-13 * np.max(np.abs(a)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_out_of_range_stays_in_its_entry(xp, dtype):
    """An entry beyond the range of the dtype is inf; its neighbors are right, or zero where nothing is left."""
    top = np.log(float(np.finfo(dtype).max))
    query_log = [1.1 * top, 0.0, 1.0]
    key_log = [[0.0, -3 * top, -3 * top], [-0.8 * top, 0.0, -2.0], [-9 * top] * 3, [-1.1 * top] * 3]
    keys = make(xp, np.ones((4, 3)), key_log, dtype)
    with np.errstate(over="ignore"):
        gram = to_numpy(make(xp, [[1.0] * 3], [query_log], dtype).dot(keys))[0]
        pairs = to_numpy(make(xp, [[1.0] * 3] * 4, [query_log] * 4, dtype).pairwise(keys))
    for out in (gram, pairs):
        assert out[0] == np.inf
        assert out[2] == 0.0
        # exponents of up to 3 top, rounded a few times
        np.testing.assert_allclose(out[[1, 3]], [np.exp(0.3 * top) + 1, 1.0], rtol=8 * eps_of(dtype) * 3 * top)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_where_the_other_is_small(xp, dtype):
    """Products of order one from factors near both ends of the range: feature by feature, not row by row."""
    s = np.floor(0.9 * np.log(float(np.finfo(dtype).max)))
    queries = make(xp, [[1.0, 2.0], [1.0, -1.0]], [[s, -s], [-s, s]], dtype)
    keys = make(xp, [[3.0, 1.0], [1.0, 1.0]], [[-s, s], [-s, s]], dtype)
    expected = np.array([[3.0 + 2.0, 1.0 + 2.0], [-np.inf, -np.inf]])
    with np.errstate(over="ignore"):
        gram, pairs = to_numpy(queries.dot(keys)), to_numpy(queries.pairwise(keys))
    np.testing.assert_allclose(gram, expected, rtol=8 * s * eps_of(dtype))
    np.testing.assert_allclose(pairs, np.diagonal(expected), rtol=8 * s * eps_of(dtype))


def test_nan_stays_in_its_row_and_column(xp, rng):
    a, b = signed_features(rng, 3, 4, per_feature=True), signed_features(rng, 5, 4, per_feature=True)
    clean = to_numpy(make(xp, *a).dot(make(xp, *b)))
    spoilt_a, spoilt_b = [x.copy() for x in a], [x.copy() for x in b]
    spoilt_a[1][1, 2] = np.nan
    spoilt_b[1][0, 1] = np.nan
    spoilt_b[0][4, 0] = np.nan
    gram = to_numpy(make(xp, *spoilt_a).dot(make(xp, *spoilt_b)))
    keep = np.ix_([0, 2], [1, 2, 3])
    np.testing.assert_allclose(gram[keep], clean[keep], rtol=1e-13)
    gram[keep] = np.nan
    assert np.all(np.isnan(gram))


def test_zero_features(xp):
    """log_scale -inf is a feature that is zero."""
    zero, one = make(xp, [[1.0, 1.0]], [[-np.inf, -np.inf]]), make(xp, [[1.0, 1.0]], [[0.0, 1.0]])
    assert same_bits(zero.dot(zero), [[0.0]])
    assert same_bits(zero.dot(one), [[0.0]])
    assert same_bits(one.dot(zero), [[0.0]])
    assert same_bits(zero.pairwise(one), [0.0])
    assert same_bits(zero.to_array(), [[0.0, 0.0]])


@pytest.mark.parametrize(("n", "k"), [(0, 3), (3, 0), (0, 0)])
def test_no_rows(xp, n, k):
    a, b = make(xp, np.ones((2, n, 4)), np.ones((2, n, 1))), make(xp, np.ones((2, k, 4)), np.ones((2, k, 4)))
    assert tuple(a.dot(b).shape) == (2, n, k)
    if n == k:
        assert tuple(a.pairwise(b).shape) == (2, n)


def test_scaled_multiplies_rows(xp, rng):
    a, b = signed_features(rng, 3, 4), signed_features(rng, 3, 4, per_feature=True)
    weight = rng.standard_normal((3, 1))
    for values, log in (a, b):
        scaled = make(xp, values, log).scaled(asarray(xp, weight))
        np.testing.assert_allclose(to_numpy(scaled.to_array()), values * np.exp(log + weight), rtol=1e-14)


def test_broadcasts_over_leading_dimensions(xp, rng):
    a, b = signed_features(rng, 3, 4, lead=(2, 1)), signed_features(rng, 5, 4, lead=(6,))
    gram = make(xp, *a).dot(make(xp, *b))
    assert tuple(gram.shape) == (2, 6, 3, 5)
    np.testing.assert_allclose(to_numpy(gram[1, 2, ...]), (wide(*a)[1, 0] @ wide(*b)[2].T).astype(float), rtol=1e-12)


def test_is_immutable(rng):
    features = rf.Features(*signed_features(rng, 2, 3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        features.values = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        features.log_scale = None
