"""Hostile inputs: empty, tiny, huge, subnormal, NaN and infinite, one dimension, one row, in every combination."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import randfeat as rf
from tests.arrays import asarray, compiled, eps_of, to_numpy
from tests.cases import ATTENTION, FEATURES, KERNELS

MAKE = [make(kernel) for make in FEATURES for kernel in KERNELS]

# Squared norms stay finite with room for a factor of 100 (float32 for float16): |x|² of 1e34 and 1e300.
LARGEST = {"float16": 6e4, "float32": 1e17, "float64": 1e150}

estimators = st.sampled_from(MAKE)
dtypes = st.sampled_from(sorted(LARGEST))
dims = st.integers(1, 5)
rows = st.integers(1, 4)
leads = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)


def draw_map(estimator, dim, num_rows, dtype):
    return estimator.draw(dim, num_rows * estimator.features_per_row, rng=0, like=np.empty(0, dtype))


def arrays(shape, dtype, *, largest=None, special=False):
    """Finite numbers of any size, zeros and subnormals among them; with `special`, NaN and infinities too."""
    largest = float(np.dtype(dtype).type(largest or LARGEST[dtype]))
    width = np.dtype(dtype).itemsize * 8
    finite = st.floats(-largest, largest, width=width, allow_nan=False, allow_infinity=False)
    tiny = st.sampled_from([0.0, -0.0, float(np.finfo(dtype).smallest_subnormal), -float(np.finfo(dtype).tiny)])
    elements = st.one_of(finite, st.floats(-4, 4, width=width), tiny)
    if special:
        elements = st.one_of(elements, st.sampled_from([np.nan, np.inf, -np.inf]))
    return hnp.arrays(dtype, shape, elements=elements)


@given(data=st.data(), estimator=estimators, dtype=dtypes, dim=dims, num_rows=rows, lead=leads, n=st.integers(0, 4))
def test_features_of_anything(data, estimator, dtype, dim, num_rows, lead, n):
    """Shape and dtype always; finite rows have finite scales; what is not finite spoils its own row, and only that."""
    x = data.draw(arrays((*lead, n, dim), dtype, special=True))
    phi = draw_map(estimator, dim, num_rows, dtype)
    with np.errstate(all="ignore"):
        features = phi.queries(x)
        plain = features.to_array().astype(dtype)
        estimate = phi.estimate(x, x)
    assert plain.shape == (*lead, n, phi.num_features)
    assert estimate.shape == (*lead, n, n)
    assert plain.dtype == estimate.dtype == dtype
    fine = np.isfinite(x).all(axis=-1)
    assert np.isfinite(features.log_scale[fine]).all()
    assert np.isfinite(features.values[fine]).all()
    assert not np.isnan(estimate[fine[..., :, None] & fine[..., None, :]]).any()
    with_nan = np.isnan(x).any(axis=-1)
    assert np.isnan(plain[with_nan]).all()
    assert np.isnan(estimate[with_nan[..., :, None] | with_nan[..., None, :]]).all()
    if estimator.positive:
        assert np.all(estimate[~np.isnan(estimate)] >= 0)
        assert np.all(plain[~np.isnan(plain)] >= 0)
    else:
        assert np.all(np.abs(features.values[fine]) <= np.sqrt(2))


@given(
    data=st.data(), kernel=st.sampled_from(KERNELS), dtype=dtypes, dim=dims, n=st.integers(0, 4), k=st.integers(0, 4)
)
def test_kernels_of_anything(data, kernel, dtype, dim, n, k):
    x = data.draw(arrays((n, dim), dtype, special=True))
    y = data.draw(arrays((k, dim), dtype, special=True))
    with np.errstate(all="ignore"):
        gram, pairs = kernel(x, y), kernel.pairwise(x[:, None, :], y)
    for values in (gram, pairs):
        assert values.shape == (n, k)
        assert values.dtype == dtype
        fine = np.isfinite(x).all(axis=-1)[:, None] & np.isfinite(y).all(axis=-1)
        assert np.all(values[fine] >= 0), "NaN or negative"
        nan = np.isnan(x).any(axis=-1)[:, None] | np.isnan(y).any(axis=-1)
        assert np.isnan(values[nan]).all()
        if isinstance(kernel, rf.GaussianKernel):
            assert np.all(values[fine] <= 1)


@given(data=st.data(), estimator=estimators, dtype=dtypes, dim=dims, num_rows=rows, is_causal=st.booleans())
def test_positive_attention_to_anything_finite(data, estimator, dtype, dim, num_rows, is_causal):
    """Convex combinations of the values that are seen, zeros where none is; signed features at least keep the shape."""
    length, keys = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    query, key = (data.draw(arrays((n, dim), dtype)) for n in (length, keys))
    value = data.draw(arrays((keys, 2), dtype, largest=1e3))
    mask = data.draw(hnp.arrays(bool, keys))
    phi = draw_map(estimator, dim, num_rows, dtype)
    with np.errstate(all="ignore" if not estimator.positive else "warn", under="ignore"):
        out = rf.linear_attention(query, key, value, phi, scale=1.0, is_causal=is_causal, key_mask=mask)
    assert out.shape == (length, 2)
    assert out.dtype == dtype
    slack = 2 * (keys * phi.num_features + 16) * eps_of("float64" if dtype == "float64" else "float32")
    for i in range(length):
        seen = mask & (np.arange(keys) <= i if is_causal else True)
        if not seen.any():
            assert np.all(out[i] == 0)
        elif estimator.positive:
            v = value[seen].astype(np.float64)
            room = slack * np.abs(v).max(axis=0)
            assert np.all(out[i] >= (v.min(axis=0) - room).astype(dtype))
            assert np.all(out[i] <= (v.max(axis=0) + room).astype(dtype))


@given(data=st.data(), estimator=estimators, dim=dims, num_rows=rows, is_causal=st.booleans())
def test_attention_spoilt_by_nan(data, estimator, dim, num_rows, is_causal):
    """Outputs that do not see a NaN (by causality, by the mask, in another head) are the same as without it."""
    query, key, value = (data.draw(arrays((2, 4, dim), "float64", largest=3.0)) for _ in range(3))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=4, max_size=4)))
    head, position, where = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 3), st.sampled_from("qkv")))
    phi = draw_map(estimator, dim, num_rows, "float64")
    spoilt = {"q": query.copy(), "k": key.copy(), "v": value.copy()}
    spoilt[where][head, position] = np.nan
    options = {"scale": 1.0, "is_causal": is_causal, "key_mask": mask}
    with np.errstate(all="ignore"):
        clean = rf.linear_attention(query, key, value, phi, **options)
        out = rf.linear_attention(*spoilt.values(), phi, **options)
    sees = np.zeros((2, 4), bool)
    if where == "q":
        sees[head, position] = True
    elif mask[position]:
        sees[head, position if is_causal else 0 :] = True
    assert np.array_equal(out[~sees], clean[~sees], equal_nan=True)
    if where != "q" or mask[: position + 1 if is_causal else 4].any():
        assert np.isnan(out[sees]).all()


@given(dtype=dtypes, estimator=estimators, dim=dims, num_rows=rows, n=st.integers(1, 6))
def test_zero_vectors(dtype, estimator, dim, num_rows, n):
    """At the origin every kernel here is 1, pairs and positive features are exact, and attention is a mean."""
    zero = np.zeros((n, dim), dtype)
    phi = draw_map(estimator, dim, num_rows, dtype)
    value = np.arange(n, dtype=dtype)[:, None]
    rounding = 8 * (phi.num_features + n) * eps_of("float64" if dtype == "float64" else "float32")
    half = eps_of(dtype) if dtype == "float16" else 0.0
    assert np.all(estimator.kernel(zero, zero) == 1)
    width = phi.num_features
    if np.all(estimator.relative_variance(zero, zero, num_features=width) == 0):  # all but phases and tilted rows
        np.testing.assert_allclose(phi.estimate(zero, zero), 1, rtol=rounding + half)
        for is_causal in (False, True):
            out = rf.linear_attention(zero, zero, value, phi, scale=1.0, is_causal=is_causal)
            expected = np.arange(n)[:, None] / 2 if is_causal else np.full((n, 1), (n - 1) / 2)
            np.testing.assert_allclose(out, expected, rtol=rounding + half, atol=rounding * n)


@given(
    data=st.data(),
    estimator=st.sampled_from([e for e in MAKE if type(e) in (rf.PositiveFeatures, rf.HyperbolicFeatures)]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_one_dimension_one_row_opposite_points(data, estimator, dtype):
    """With one row in one dimension, positive features are exact at y = -x: k̂ = k whatever the row."""
    x = data.draw(arrays((3, 1), dtype, largest=5.0))
    phi = draw_map(estimator, 1, 1, dtype)
    expected = estimator.kernel.pairwise(x, -x)
    terms = 1 + 2 * np.max(x.astype(float) ** 2) + 8 * np.max(np.abs(x))
    np.testing.assert_allclose(phi.estimate_pairwise(x, -x), expected, rtol=40 * terms * eps_of(dtype))


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_hostile_values_on_every_library(xp, estimator):
    """The same table everywhere: subnormal, huge, NaN and infinite rows next to an ordinary one."""
    for dtype in ("float32", "float64"):
        ordinary = [0.3, -0.5, 1.0]
        bad = [np.nan, np.inf, -np.inf, LARGEST[dtype], float(np.finfo(dtype).smallest_subnormal), 0.0]
        x = np.array([[value, 0.5, 0.0] for value in bad] + [ordinary])
        phi = estimator.draw(3, 8, rng=0, like=asarray(xp, x, dtype))
        run = compiled(xp, lambda x, phi=phi: phi.queries(x).to_array())
        with np.errstate(all="ignore"):
            features = to_numpy(run(asarray(xp, x, dtype)))
            estimate = to_numpy(compiled(xp, phi.estimate)(asarray(xp, [ordinary], dtype), asarray(xp, x, dtype)))[0]
            alone = to_numpy(run(asarray(xp, [ordinary], dtype)))
        assert np.isnan(features[0]).all()
        assert np.isnan(estimate[0])
        assert not np.isfinite(features[1:3]).all()
        assert np.isfinite(features[4:]).all()
        assert np.isfinite(estimate[4:]).all()
        assert not np.isnan(estimate[3])
        np.testing.assert_allclose(features[-1], alone[0], rtol=100 * eps_of(dtype), atol=10 * eps_of(dtype))
