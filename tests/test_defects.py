"""One test for each defect that was demonstrated in other implementations and could exist here.

They are numbered B1 .. B23 in our survey of the field. Parts of them cannot exist here, for want of the thing itself:
compiled loops that read past the end of an array (B9), a structured sampler of Givens rotations (B10), seeds computed
from the data and state assigned inside of traced functions (B11: feature maps have no state), hand-written backward
passes (B12: gradients are those of automatic differentiation; their accuracy is still tested), feature types chosen by
index (B13), separate training and evaluation modes (B5, B15), gated features and their low-precision kernels (B16).
What remains of each is below. Spectral measures (B20), quasi-random rows (B19) and products of Hadamard matrices (B21)
are held to their laws in test_spectral.py and test_other_couplings.py.

Statistical tests compare a mean over N independent draws with its exact value, in units of its exact standard error:
they fail by chance once in 10^6 (|z| < 4.9), and the docstring says which deviation they catch 999 times in 1000.
"""

import dataclasses
import inspect
import re

import numpy as np
import pytest

import randfeat as rf
from randfeat.couplings import base
from tests.arrays import asarray, compiled, dtype_of, eps_of, same_bits, to_numpy
from tests.cases import ATTENTION, COUPLINGS, ESTIMATORS, POSITIVE
from tests.reference import naive_attention

EXACT = [coupling for coupling in COUPLINGS if coupling.exact_marginals]
LIMIT = 4.9  # normal quantile of 1 - 5e-7
POWER = 3.1  # normal quantile of 0.999


def mean_estimates(estimator, x, y, *, num_features, draws, rng):
    """Estimates K̂(x, y) over independent draws, (draws,)."""
    phi = estimator.draw(x.shape[-1], num_features, rng=rng, batch_shape=(draws,))
    return phi.estimate_pairwise(x[None, None, :], y[None, None, :])[:, 0]


def z_score(sample, expected, deviation):
    """Deviation of the mean of a sample from what is expected, in units of its exact standard error."""
    return (np.mean(sample) - expected) / (deviation / np.sqrt(len(sample)))


# B1 .. B4 --------------------------------------------------------------------------------------------------------

B1_INPUTS = [
    np.array([0.5, 0.0]),
    np.array([-0.5, 0.0]),
    np.full(8, 0.5 / np.sqrt(8)),
    np.full(16, 0.5 / np.sqrt(16)),
]


def b01_z_scores(rng):
    estimator = rf.PositiveFeatures(coupling="orthogonal")
    for x in B1_INPUTS:
        d, draws = len(x), 20_000
        deviation = float(np.sqrt(estimator.variance(x, x, num_features=d)))
        truth = np.exp(0.25)
        assert (LIMIT + POWER) * deviation / np.sqrt(draws) < 0.06 * truth
        sample = mean_estimates(estimator, x, x, num_features=d, draws=draws, rng=rng)
        yield z_score(sample, truth, deviation)


def test_b01_orthogonal_rows_without_a_sign_fix_are_biased():
    """QR fixes the signs of R, not of Q: positive features are then off by 7 .. 35 % along fixed directions.

    20 000 draws: a bias of 6 % is caught.
    """
    assert np.max(np.abs(list(b01_z_scores(np.random.default_rng(1))))) < LIMIT


def test_b01_is_caught(monkeypatch):
    """The same check, with the raw factors of LAPACK, fails by far for every input."""

    def raw_rows(num_rows, dim, *, rng, batch_shape=()):
        q, _ = np.linalg.qr(rng.standard_normal((*batch_shape, dim, num_rows)))
        return np.swapaxes(q, -1, -2)

    monkeypatch.setattr("randfeat.couplings.orthogonal.haar_rows", raw_rows)
    assert np.min(np.abs(list(b01_z_scores(np.random.default_rng(1))))) > 2 * LIMIT


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 3.0])
def test_b02_epsilon_turns_attention_into_the_mean_of_the_values(scale):
    """A constant added to features hides an underflow: at q, k of twice the unit size attention was silently off.

    Here the output is the ratio of the estimates themselves, and varies about the mean of v as exact attention does.
    """
    rng = np.random.default_rng(2)
    query, key, value = rng.standard_normal((3, 32, 64))
    query, key = (scale * query).astype(np.float32), (scale * key).astype(np.float32)
    phi = rf.PositiveFeatures().draw(64, 64, rng=0, like=query)
    out = rf.linear_attention(query, key, value.astype(np.float32), phi)
    naive_attention(phi, query, key, value).check(out, eps_of("float32"), most=0.5)
    signal = np.var(rf.softmax_attention(query, key, value.astype(np.float32)) - value.mean(axis=0))
    assert np.var(out - value.mean(axis=0)) > 0.5 * signal


@pytest.mark.parametrize("is_causal", [False, True])
def test_b03_masked_keys_stay_in_the_denominator(is_causal):
    """A mask that zeroes values only leaves the keys in the normalization: padded batches change valid outputs."""
    rng = np.random.default_rng(3)
    query, key, value = rng.standard_normal((3, 2, 32, 16))
    phi = rf.PositiveFeatures().draw(16, 64, rng=0)
    mask = np.arange(32) < 16
    padded = rf.linear_attention(query, key, value, phi, key_mask=mask, is_causal=is_causal)
    short = rf.linear_attention(query[:, :16], key[:, :16], value[:, :16], phi, is_causal=is_causal)
    np.testing.assert_allclose(padded[:, :16], short, rtol=1e-11)
    key, value = key.copy(), value.copy()
    key[:, 16:], value[:, 16:] = 100 * rng.standard_normal((2, 2, 16, 16))
    again = rf.linear_attention(query, key, value, phi, key_mask=mask, is_causal=is_causal)
    assert same_bits(again[:, :16] if is_causal else again, padded[:, :16] if is_causal else padded)


def test_b04_a_stabilizer_over_the_whole_sequence_leaks_the_future():
    """With a key maximum taken over all positions, the last key changed earlier outputs by more than 1."""
    rng = np.random.default_rng(4)
    query, key, value = rng.standard_normal((3, 32, 16)).astype(np.float32)
    other = key.copy()
    other[-1] *= 8
    for estimator in ATTENTION:
        phi = estimator.draw(16, 64, rng=0, like=query)
        before, after = (rf.linear_attention(query, k, value, phi, is_causal=True) for k in (key, other))
        assert same_bits(before[:-1], after[:-1])
        assert not same_bits(before[-1], after[-1])
        np.testing.assert_allclose(before[0], value[0], rtol=4 * eps_of("float32"))


# B5 .. B9 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_b05_a_map_that_was_never_drawn_has_zero_frequencies(estimator):
    """There is no undrawn map here: every row has been drawn, is not zero, and is no other row."""
    phi = estimator.draw(5, 12)
    rows = phi.arrays["rows"]
    assert np.all(np.linalg.norm(rows, axis=-1) > 0)
    assert len(np.unique(rows, axis=0)) == len(rows)
    parameters = inspect.signature(type(estimator).draw).parameters
    assert set(parameters) == {"self", "dim", "num_features", "rng", "like", "batch_shape"}  # no mode of any kind


@pytest.mark.parametrize("scale", [1.0, 3.0, 30.0])
def test_b06_subtracting_the_wrong_maximum_underflows(scale):
    """With the largest norm subtracted in place of the largest logit, rows summed to 0.45 and then to nothing."""
    rng = np.random.default_rng(6)
    query, key = (scale * rng.standard_normal((2, 128, 64))).astype(np.float32)
    for estimator in POSITIVE:
        phi = estimator.draw(64, 64, rng=0, like=query)
        for is_causal in (False, True):
            sums = rf.linear_attention(query, key, np.ones((128, 1), np.float32), phi, is_causal=is_causal)
            # sums of 128 keys times 64 features, all positive
            assert np.max(np.abs(sums - 1)) < 2 * (128 * 64 + 32) * eps_of("float32") / 64


@pytest.mark.parametrize("dim", [1, 5, 9, 64])
def test_b07_odd_widths_lose_features(dim):
    """A width that pairs cannot have is an error that names its neighbors, and k(x, x) = 1 at all that they can."""
    estimator = rf.TrigonometricFeatures(rf.GaussianKernel())
    x = np.random.default_rng(7).standard_normal((3, dim))
    for width in (9, 63, 65):
        with pytest.raises(ValueError, match=f"cannot have {width} features; nearest: {width - 1}, {width + 1}"):
            estimator.draw(dim, width, rng=0)
    for width in (2, 8, 10, 64, 66):
        phi = estimator.draw(dim, width, rng=0)
        assert phi(x).shape == (3, width)
        np.testing.assert_allclose(phi.estimate_pairwise(x, x), 1, rtol=(width + 8) * eps_of("float64"))


@pytest.mark.parametrize("dim", [2, 4])
def test_b08_norms_of_the_matrix_that_was_orthogonalised(dim):
    """Norms must not come from the rows that made the directions: E[w_1 w_1ᵀ] was diag(1.25, 0.75), not I.

    Row by row of a block, over 40 000 draws; var w² = 2, so that a second moment off by 6 % is caught.
    """
    draws = 40_000
    assert (LIMIT + POWER) * np.sqrt(2 / draws) < 0.06
    rows = rf.Orthogonal().sample(dim, dim, rng=np.random.default_rng(8), batch_shape=(draws,))
    z = (np.mean(rows**2, axis=0) - 1) / np.sqrt(2 / draws)
    assert np.max(np.abs(z)) < LIMIT
    products = rows[:, :, 0] * rows[:, :, 1]  # mean 0, variance 1
    assert np.max(np.abs(np.mean(products, axis=0) * np.sqrt(draws))) < LIMIT
    estimator = rf.TrigonometricFeatures(rf.GaussianKernel(), "orthogonal")
    x, y = np.zeros(dim), np.eye(dim)[0] * 1.5
    sample = mean_estimates(estimator, x, y, num_features=2 * dim, draws=draws, rng=9)
    deviation = float(np.sqrt(estimator.variance(x, y, num_features=2 * dim)))
    assert abs(z_score(sample, np.exp(-(1.5**2) / 2), deviation)) < LIMIT


def test_b09_docstring_and_code_disagree():
    """The kernels are the formulas that their docstrings state, temperature and length scale included."""
    x, y = np.array([[0.3, -1.2]]), np.array([[1.0, 0.4]])
    assert "exp(-|x - y|² / 2ℓ²)" in rf.GaussianKernel.__doc__
    np.testing.assert_allclose(rf.GaussianKernel(0.7)(x, y), np.exp(-np.sum((x - y) ** 2) / (2 * 0.7**2)), rtol=1e-14)
    assert "exp(scale · x·y)" in rf.SoftmaxKernel.__doc__
    np.testing.assert_allclose(rf.SoftmaxKernel(0.7)(x, y), np.exp(0.7 * np.sum(x * y)), rtol=1e-14)
    for estimator in ATTENTION:
        assert re.search(r"`(φ(_i)?\(x\)|f\(w, x\)) = ", type(estimator).__doc__), type(
            estimator
        )  # tests/test_maps.py: formula


@pytest.mark.parametrize(("queries", "keys"), [(20, 10), (10, 20)])
def test_b09_more_queries_than_keys(queries, keys):
    """Causal attention with other numbers of queries and keys pads both keys and values, or neither."""
    rng = np.random.default_rng(9)
    query, key, value = (
        rng.standard_normal((queries, 4)),
        rng.standard_normal((keys, 4)),
        rng.standard_normal((keys, 3)),
    )
    phi = rf.PositiveFeatures().draw(4, 16, rng=0)
    out = rf.linear_attention(query, key, value, phi, is_causal=True)
    naive_attention(phi, query, key, value, is_causal=True).check(out, eps_of("float64"))


# B10 .. B15 ------------------------------------------------------------------------------------------------------


def test_b10_blocks_drawn_from_one_seed_are_identical():
    """Every block of orthogonal or simplex rows is a draw of its own, with exact angles within it."""
    for coupling, cosine in ((rf.Orthogonal(), 0.0), (rf.Simplex(), -1 / 3)):
        rows = coupling.sample(12, 4, rng=np.random.default_rng(10))
        directions = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
        blocks = directions.reshape(3, 4, 4)
        for block in blocks:
            expected = np.eye(4) + cosine * (1 - np.eye(4))
            np.testing.assert_allclose(block @ block.T, expected, atol=32 * eps_of("float64"))
        assert len(np.unique(rows)) == 48


def test_b11_the_data_seed_the_draw(jax):
    """A draw depends on its seed only, a traced call leaves nothing behind, and wrong parameters say so."""
    x = jax.numpy.asarray(np.random.default_rng(11).standard_normal((4, 3)))
    phi = rf.PositiveFeatures().draw(3, 8, rng=0, like=x)
    other = rf.PositiveFeatures().draw(3, 8, rng=0, like=1000.0 * x)
    assert same_bits(phi.arrays["rows"], other.arrays["rows"])
    run = lambda x: rf.linear_attention(x, x, x, phi)  # noqa: E731
    first = run(x)
    np.testing.assert_allclose(to_numpy(jax.jit(run)(x)), to_numpy(first), rtol=1e-12)
    assert same_bits(run(x), first)  # after tracing, eagerly
    moved = np.max(np.abs(to_numpy(run(x + 1e-9)) - to_numpy(first)))
    assert moved < 1e-6
    with pytest.raises(ValueError, match="norms must be 'chi' or 'constant', got 2"):
        rf.Orthogonal(norms=2)
    with pytest.raises(ValueError, match="variant must be 'pairs' or 'phase', got 'sin'"):
        rf.TrigonometricFeatures(variant="sin")


def test_b12_prefix_sums_recovered_by_subtraction_lose_the_gradient(torch):
    """With key norms over many orders of magnitude, gradients of early queries were off by a factor of hundreds.

    float32 against float64. What float32 may do is, first, what a perturbation of the inputs by d eps does in float64:
    the largest change of each query's gradient over eight perturbations, times eight. Second, the rounding of a sum of
    terms G·v w_f which cancel where one key has all the weight: d + m of them, of known size.
    """
    rng = np.random.default_rng(12)
    length, dim = 2048, 8
    norms = np.exp(4 * rng.standard_normal((length, 1)))
    query, value = rng.standard_normal((2, length, dim))
    key = rng.standard_normal((length, dim))
    key *= norms / np.linalg.norm(key, axis=-1, keepdims=True)
    inputs = [x.astype(np.float32).astype(np.float64) for x in (query, key, value)]
    cotangent = rng.standard_normal((length, dim)).astype(np.float32)

    def gradients(inputs, dtype):
        phi = rf.PositiveFeatures().draw(dim, 16, rng=0, like=asarray(torch, np.zeros(1), dtype))
        tensors = [asarray(torch, x, dtype).requires_grad_(True) for x in inputs]
        out = rf.linear_attention(*tensors, phi, is_causal=True)
        return [to_numpy(g) for g in torch.autograd.grad((out * asarray(torch, cotangent, dtype)).sum(), tensors)]

    exact, single = gradients(inputs, "float64"), gradients(inputs, "float32")
    eps = dim * eps_of("float32")
    allowed = np.zeros((length, 1))
    for _ in range(8):
        moved = gradients([x * (1 + eps * rng.choice([-1, 1], x.shape)) for x in inputs], "float64")
        allowed = np.maximum(allowed, np.max(np.abs(moved[0] - exact[0]), axis=-1, keepdims=True))
    largest_row = np.max(np.abs(rf.PositiveFeatures().draw(dim, 16, rng=0).arrays["rows"])) * dim**-0.25
    terms = (np.abs(cotangent) @ np.max(np.abs(value), axis=0))[:, None] * largest_row
    bound = 8 * allowed + (dim + 16 + 8) * eps_of("float32") * terms
    error, size = np.abs(single[0] - exact[0]), np.linalg.norm(exact[0], axis=-1)
    assert all(np.all(np.isfinite(g)) for g in single)
    assert np.all(error <= bound)
    assert np.median(bound) < 0.01 * np.median(size)


def test_b13_unknown_names_and_a_sampler_that_is_not_haar():
    """Unknown couplings list the known ones; the entries of orthogonal rows have mean zero (it was 0.5).

    Over 10 000 draws with variance 1/d each, a mean of 0.05 is caught.
    """
    with pytest.raises(ValueError, match="unknown coupling 'favor\\+'; expected one of 'antithetic', "):
        rf.PositiveFeatures(coupling="favor+")
    draws, dim = 10_000, 4
    assert (LIMIT + POWER) / np.sqrt(dim * draws) < 0.05
    q = base.haar_rows(dim, dim, rng=np.random.default_rng(13), batch_shape=(draws,))
    assert np.max(np.abs(np.mean(q, axis=0))) * np.sqrt(dim * draws) < LIMIT
    deviation = np.sqrt(3 / (dim * (dim + 2)) - 1 / dim**2)  # of a squared entry; products of two vary less
    moments = np.mean(q[:, :, None, 0] * q[:, None, :, 0], axis=0) - np.eye(dim) / dim
    assert np.max(np.abs(moments)) * np.sqrt(draws) < LIMIT * deviation


def test_b14_sums_over_the_wrong_axis():
    """The first value takes part in every later output; and rows have squared norm d, not its quarter."""
    rng = np.random.default_rng(14)
    query, key, value = rng.standard_normal((3, 8, 4))
    other = value.copy()
    other[0] += 100
    for estimator in POSITIVE:
        phi = estimator.draw(4, 16, rng=0)
        change = rf.linear_attention(query, key, other, phi, is_causal=True)
        change -= rf.linear_attention(query, key, value, phi, is_causal=True)
        assert np.all(change > 1e-3)
        np.testing.assert_allclose(change[0], 100, rtol=1e-12)
    draws = 10_000
    for coupling in COUPLINGS:
        rows = coupling.sample(8, 8, rng=rng, batch_shape=(draws,))
        sqnorm = np.sum(rows[:, 0] ** 2, axis=-1)
        deviation = np.sqrt(2 * 8) if coupling.exact_marginals else 8e-10  # chi-squared, or constant
        assert abs(z_score(sqnorm, 8, deviation)) < LIMIT, coupling


def test_b15_denominators_clamped_and_seeds_ignored():
    """Small denominators are denominators: at q, k ~ N(0, 1), d = 64 the weights sum to one, not to 0.015."""
    rng = np.random.default_rng(15)
    query, key, value = rng.standard_normal((3, 32, 64)).astype(np.float32)
    one, again, other = (rf.PositiveFeatures().draw(64, 64, rng=seed, like=query) for seed in (0, 0, 1))
    plain = one(query) @ np.sum(one(key), axis=0)
    assert np.median(plain) < 1e-2  # what was clamped
    sums = rf.linear_attention(query, key, np.ones_like(value), one, scale=1.0)
    assert np.max(np.abs(sums - 1)) < 2 * (32 + 64 + 32) * eps_of("float32")
    outs = [rf.linear_attention(query, key, value, phi) for phi in (one, again, other)]
    assert same_bits(outs[0], outs[1])
    assert not same_bits(outs[0], outs[2])


# B16 .. B23 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_b16_positive_features_that_are_negative_or_lost(xp, dtype):
    """Positive features are positive for every input, all-negative ones too, and none is lost in half precision."""
    x = -np.abs(np.random.default_rng(16).standard_normal((6, 8)))
    for estimator in POSITIVE:
        phi = estimator.draw(8, 16, rng=0, like=asarray(xp, x, dtype))
        features = to_numpy(compiled(xp, phi)(asarray(xp, x, dtype)))
        assert np.all(features > 0)
        assert np.all(np.std(features, axis=-1) > 1e-3)
        log = to_numpy(compiled(xp, lambda x, phi=phi: phi.queries(x).log_scale)(asarray(xp, x, dtype)))
        assert len(np.unique(log)) == log.size


def test_b17_rows_whose_denominator_underflowed(torch):
    """At thirty times the unit size plain features underflow in most rows; outputs and gradients do not.

    float32 at |x|² = 7000: the output is a convex combination of values, and gradients are neither zero nor NaN.
    """
    rng = np.random.default_rng(17)
    query, key, value = (torch.tensor(x, dtype=torch.float32) for x in rng.standard_normal((3, 2, 40, 64)))
    query, key = (30 * query).requires_grad_(True), (30 * key).requires_grad_(True)
    phi = rf.PositiveFeatures().draw(64, 256, rng=0, like=query)
    assert float(torch.mean((phi(query * 64**-0.25) == 0).all(-1).float())) > 0.5
    for is_causal in (False, True):
        out = rf.linear_attention(query, key, value, phi, is_causal=is_causal)
        assert bool(torch.isfinite(out).all())
        assert bool((out.std(-1) > 0.1).all())
        gradient = torch.autograd.grad(rf.linear_attention(query, key, value, phi, scale=1e-3).square().sum(), key)[0]
        assert bool(torch.isfinite(gradient).all())
        assert bool((gradient.abs().sum(-1) > 0).any())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_b17_first_causal_output_in_half_precision(xp, dtype):
    """The first causal output is v_0 in half precision too: exactly, after float32; it was off by up to 3.8."""
    rng = np.random.default_rng(18)
    query, key, value = (asarray(xp, 3 * x, dtype) for x in rng.standard_normal((3, 20, 3, 64)))
    phi = rf.PositiveFeatures().draw(64, 128, rng=0, like=query)
    out = compiled(xp, lambda q, k, v: rf.linear_attention(q, k, v, phi, is_causal=True))(query, key, value)
    assert out.dtype == dtype_of(xp, dtype)
    assert same_bits(out[:, 0, :], value[:, 0, :])


@pytest.mark.parametrize("coupling", EXACT, ids=repr)
def test_b18_norms_with_one_degree_of_freedom(coupling):
    """Rows have squared norms of chi-squared with d degrees of freedom and no preferred sign, at any width.

    10 000 draws of rows: a squared norm off by 3 %, or signs 53 to 47, are caught.
    """
    dim, draws = 16, 10_000
    assert (LIMIT + POWER) * np.sqrt(2 / (dim * draws)) < 0.03
    assert (LIMIT + POWER) * 0.5 / np.sqrt(draws) < 0.042
    rows = coupling.sample(4, dim, rng=np.random.default_rng(19), batch_shape=(draws,))[:, 0]
    assert abs(z_score(np.sum(rows**2, axis=-1), dim, np.sqrt(2 * dim))) < LIMIT
    positive = np.mean(rows > 0, axis=0)
    assert np.max(np.abs(positive - 0.5)) * 2 * np.sqrt(draws) < LIMIT
    phi = rf.TrigonometricFeatures(coupling=coupling, variant="phase").draw(dim, 6, rng=0)
    assert phi.redraw(1).num_features == 6


@pytest.mark.parametrize("dim", [2, 4, 8])
def test_b19_orthogonal_coordinates_in_place_of_frequencies(dim):
    """Frequencies are orthogonal, not their coordinates; maps are normalized; odd dimensions and widths work.

    The Gaussian kernel at distance 1.5 along an axis: 40 000 draws, a bias of 8 % is caught (it was 14 .. 23 %).
    """
    rows = rf.Orthogonal().sample(dim, dim, rng=np.random.default_rng(20))
    directions = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    np.testing.assert_allclose(directions @ directions.T, np.eye(dim), atol=8 * dim * eps_of("float64"))
    estimator = rf.TrigonometricFeatures(rf.GaussianKernel(), "orthogonal", variant="phase")
    x, y, draws = np.zeros(dim), 1.5 * np.eye(dim)[0], 40_000
    deviation = float(np.sqrt(estimator.variance(x, y, num_features=dim)))
    truth = np.exp(-(1.5**2) / 2)
    assert (LIMIT + POWER) * deviation / np.sqrt(draws) < 0.08 * truth
    sample = mean_estimates(estimator, x, y, num_features=dim, draws=draws, rng=21)
    assert abs(z_score(sample, truth, deviation)) < LIMIT
    phi = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(3, 1000, rng=0)
    np.testing.assert_allclose(np.sum(phi(np.ones((1, 3))) ** 2), 1.0, rtol=1e-12)
    assert rf.PositiveFeatures().draw(3, 7, rng=0)(np.ones((1, 3))).shape == (1, 7)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_b20_seeds_that_are_ignored(estimator):
    """The seed decides everything that is drawn, and the global generators of NumPy nothing."""
    np.random.seed(0)  # noqa: NPY002
    first = estimator.draw(3, 12, rng=5)
    np.random.seed(1)  # noqa: NPY002
    again, other = estimator.draw(3, 12, rng=5), estimator.draw(3, 12, rng=6)
    for name, array in first.arrays.items():
        assert same_bits(array, again.arrays[name])
    assert not np.any(first.arrays["rows"] == other.arrays["rows"])


def test_b21_one_set_of_norms_for_all_blocks_and_other_constants():
    """Norms of different rows are independent, across blocks too; any dimension; no factor 2π, no missing √d.

    15 000 draws: a correlation of 0.07 between squared norms is caught (it was 1), and a mean that is off by 5 %.
    """
    draws, dim = 15_000, 6  # not a power of two
    assert (LIMIT + POWER) / np.sqrt(draws) < 0.07
    for coupling in (rf.Orthogonal(), rf.Simplex(), rf.Antithetic(rf.Orthogonal())):
        half = 1 if not isinstance(coupling, rf.Antithetic) else 2
        rows = coupling.sample(3 * dim * half, dim, rng=np.random.default_rng(22), batch_shape=(draws,))
        sqnorm = (np.sum(rows**2, axis=-1) - dim) / np.sqrt(2 * dim)
        first = sqnorm[:, 0]
        for other in (1, dim, 2 * dim):  # in its own block, and at the same place of the others
            assert abs(np.mean(first * sqnorm[:, other]) * np.sqrt(draws)) < LIMIT
    x = np.array([0.7, -0.2, 0.1])
    for estimator in ATTENTION:
        law = dataclasses.replace(estimator, coupling=rf.Independent())
        sample = mean_estimates(law, x, x / 2, num_features=16, draws=draws, rng=23)
        deviation = float(np.sqrt(law.variance(x, x / 2, num_features=16)))
        assert (LIMIT + POWER) * deviation / np.sqrt(draws) < 0.05
        assert abs(z_score(sample, np.exp(x @ x / 2), deviation)) < LIMIT


def test_b22_self_similarity_generators_and_dtypes(torch):
    """Pairs are exact at x = y and beat phases; Generators, tensors, batches and float32 are taken as they come."""
    x = np.random.default_rng(24).standard_normal((3, 5, 8))
    kernel = rf.GaussianKernel(np.sqrt(5.0))
    pairs, phase = (rf.TrigonometricFeatures(kernel, variant=variant) for variant in ("pairs", "phase"))
    phi = pairs.draw(8, 256, rng=np.random.default_rng(0))
    np.testing.assert_allclose(phi.estimate_pairwise(x, x), 1, rtol=300 * eps_of("float64"))
    assert phi(x).shape == (3, 5, 256)
    independent = [rf.TrigonometricFeatures(kernel, "independent", variant) for variant in ("pairs", "phase")]
    iid = [estimator.variance(x[0], x[1], num_features=256) for estimator in independent]
    assert np.all(iid[0] < iid[1])
    assert np.all(pairs.variance(x[0], x[1], num_features=256) < phase.variance(x[0], x[1], num_features=256))
    single = x.astype(np.float32)
    assert pairs.draw(8, 256, rng=0, like=single)(single).dtype == np.float32
    tensor = torch.tensor(single)
    features = pairs.draw(8, 256, rng=0, like=tensor)(tensor)
    assert features.dtype == torch.float32
    assert features.shape == (3, 5, 256)


def test_b23_small_and_odd_sizes():
    """One dimension, one feature, more queries than keys, lengths that nothing divides, five dimensions, groups."""
    rng = np.random.default_rng(25)
    phi = rf.PositiveFeatures().draw(1, 1, rng=0)
    x = rng.standard_normal((6, 1))
    assert np.all(np.isfinite(rf.linear_attention(x, x, x, phi, is_causal=True)))
    phi = rf.PositiveFeatures().draw(4, 16, rng=0)
    for queries, keys in ((20, 10), (200, 300), (300, 200)):
        query, key = rng.standard_normal((queries, 4)), rng.standard_normal((keys, 4))
        for is_causal in (False, True):
            assert rf.linear_attention(query, key, key, phi, is_causal=is_causal).shape == (queries, 4)
    x = rng.standard_normal((2, 1, 3, 2, 7, 4))
    assert rf.linear_attention(x, x, x, phi).shape == x.shape
    grouped = rf.linear_attention(x, x[..., :1, :, :], x[..., :1, :, :], phi, enable_gqa=True)
    assert grouped.shape == x.shape


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_b23_large_keys_give_nan(dtype):
    """Causal attention with keys thirty times the unit size, in float16 too, is finite."""
    rng = np.random.default_rng(26)
    query, key, value = rng.standard_normal((3, 2, 64, 16))
    query, key, value = (x.astype(dtype) for x in (query, 30 * key, value))
    for estimator in POSITIVE:
        phi = estimator.draw(16, 64, rng=0, like=query)
        for is_causal in (False, True):
            out = rf.linear_attention(query, key, value, phi, is_causal=is_causal)
            assert np.all(np.isfinite(out))
            slack = 2 * (64 * 64 + 16) * eps_of("float32") * np.abs(value).max()  # sums of 64 keys and 64 features
            assert np.all(out <= value.max(axis=-2, keepdims=True) + slack)
            assert np.all(out >= value.min(axis=-2, keepdims=True) - slack)
