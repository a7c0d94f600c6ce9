"""The stated bounds on the error of Gram matrices and pairwise values: any offset, scale and clusters, every library.

`python -m tests.test_gram_bounds` prints the worst errors of 10^5 pairs at each offset, in units of the bounds.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import randfeat as rf
from randfeat.kernels import distances
from tests.arrays import asarray, eps_of, to_numpy

# Each kernel with c = max(|L'(0)|, 1/e) where its Gram matrix may be expanded, else None.
ISOTROPIC = {
    rf.GaussianKernel(): 0.5,
    rf.GaussianKernel(0.37): 0.5,
    rf.RationalQuadraticKernel(0.7, 1.9): 0.5,
    rf.RationalQuadraticKernel(0.05): 0.5,
    rf.MaternKernel(1.5, 0.7): 1.5,
    rf.MaternKernel(2.5): 2.5 / 3,
    rf.MaternKernel(0.5): None,
    rf.MaternKernel(1.2): None,
    rf.MaternKernel(0.05): None,
    rf.ExponentialKernel(1.3): None,
    rf.ExponentialPowerKernel(2.0): 1.0,
    rf.ExponentialPowerKernel(1.4): None,
    rf.ExponentialPowerKernel(0.1, 0.8): None,
}
SEPARABLE = (rf.LaplacianKernel(0.9), rf.CauchyKernel())
KERNELS = (*ISOTROPIC, *SEPARABLE)
BESSEL = (rf.MaternKernel(1.2), rf.MaternKernel(0.05))  # NumPy only


def bounds(kernel, dim, dtype):
    """The bounds for a Gram matrix and for pairs: of distances, and 8 eps for the evaluation of the kernel's function.

    SciPy's Bessel function, in float64, has 64 eps.
    """
    eps = eps_of(dtype)
    if kernel in SEPARABLE:
        return 8 * dim * eps, 8 * dim * eps
    slope, evaluation = ISOTROPIC[kernel], 8 * eps + (64 * eps_of("float64") if kernel in BESSEL else 0)
    pairs = (dim + 4) * eps + evaluation
    return (max(pairs, 32 * (dim + 6) * eps * slope + evaluation) if slope else pairs), pairs


def exact(kernel, x, y):
    """The Gram matrix from differences in the longest floating point there is, whose squares are in range."""
    difference = (x[:, None, :].astype(np.longdouble) - y.astype(np.longdouble)) / np.longdouble(kernel.length_scale)
    with np.errstate(over="ignore", under="ignore"):
        values = of_differences(kernel, np.abs(difference))
    return values.astype(np.float64)


def of_differences(kernel, delta):
    """The definitions of the kernels, (n, k, d) -> (n, k)."""
    if isinstance(kernel, rf.LaplacianKernel):
        return np.exp(-delta.sum(-1))
    if isinstance(kernel, rf.CauchyKernel):
        return np.prod(1 / (1 + delta**2), axis=-1)
    square = np.sum(delta**2, axis=-1)
    distance = np.sqrt(square)
    match kernel:
        case rf.GaussianKernel():
            return np.exp(-square / 2)
        case rf.RationalQuadraticKernel():
            return np.exp(-kernel.alpha * np.log1p(square / (2 * kernel.alpha)))
        case rf.ExponentialKernel():
            return np.exp(-distance)
        case rf.ExponentialPowerKernel():
            return np.exp(-(distance**kernel.power))
        case rf.MaternKernel(smoothness=0.5):
            return np.exp(-distance)
        case rf.MaternKernel(smoothness=1.5):
            return (1 + np.sqrt(3) * distance) * np.exp(-np.sqrt(3) * distance)
        case rf.MaternKernel(smoothness=2.5):
            return (1 + np.sqrt(5) * distance + 5 * square / 3) * np.exp(-np.sqrt(5) * distance)
    return bessel(kernel.smoothness, np.sqrt(2 * kernel.smoothness) * distance.astype(np.float64))


def bessel(nu, a):
    """`2^{1-ν}/Γ(ν) a^ν K_ν(a)`, by its series where a is tiny."""
    from scipy.special import gamma, kv

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        value = 2 ** (1 - nu) / gamma(nu) * a**nu * kv(nu, a)
    near = 1 - gamma(1 - nu) / gamma(1 + nu) * (a / 2) ** (2 * nu) if nu < 1 else np.ones_like(a)
    return np.where(a < 1e-8, near, np.where(a > 700, 0.0, value))


def hostile(seed, dim, dtype, shape=None):
    """Two sets of rows: any offset, any scale, clusters at any distance, equal rows, rows that nearly are."""
    rng = np.random.default_rng(seed)
    largest = 1e-3 * float(np.finfo(dtype).max)
    scale = 10.0 ** rng.uniform(-3, 2)
    offset = 10.0 ** rng.choice([-9.0, *rng.uniform(0, 9, 2), rng.uniform(9, np.log10(largest))])
    gap = 10.0 ** rng.choice([-9.0, *rng.uniform(0, 9, 2), rng.uniform(9, np.log10(largest))])
    n, k = shape or rng.integers(1, 12, 2)
    if rng.random() < 0.3 and not shape:
        k = n
    x = scale * rng.standard_normal((n, dim)) + offset * rng.choice([0, 1]) + gap * rng.integers(0, 3, (n, 1))
    y = scale * rng.standard_normal((k, dim)) + offset * rng.choice([0, 1]) + gap * rng.integers(0, 3, (k, 1))
    close = rng.integers(0, n, k)
    near = x[close] * (1 + 10.0 ** rng.uniform(-17, -3, (k, 1))) + rng.choice([0, 1e-30, 1e-6, 1.0])
    y = np.where(rng.random((k, 1)) < 0.5, near, y)
    return x.astype(dtype), y.astype(dtype)


def worst(kernel, x, y, dtype):
    """The largest errors of the Gram matrix and of pairs, in units of their bounds."""
    dim, expected = x.shape[-1], exact(kernel, to_numpy(x).astype(dtype), to_numpy(y).astype(dtype))
    with np.errstate(over="ignore", under="ignore"):
        found = kernel(x, y), kernel.pairwise(x[:, None, :], y[None, :, :])
    assert all(values.dtype == x.dtype for values in found)
    errors = (np.abs(to_numpy(values) - expected) for values in found)
    return [np.max(error) / bound for error, bound in zip(errors, bounds(kernel, dim, dtype), strict=True)]


@given(seed=st.integers(0, 2**32), dim=st.sampled_from([1, 2, 3, 8, 40]), kernel=st.sampled_from(KERNELS))
@settings(max_examples=300)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kernel_keeps_its_bound(dtype, seed, dim, kernel):
    """Values are at most 1, and the docstrings say how many eps they err by."""
    gram, pairs = worst(kernel, *hostile(seed, dim, dtype), dtype)
    assert gram <= 1, "the Gram matrix"
    assert pairs <= 1, "pairs"


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel not in BESSEL], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_library_keeps_it(xp, kernel, dtype):
    for seed in range(4):
        x, y = hostile(seed, 3, dtype, shape=(7, 9))
        assert max(worst(kernel, asarray(xp, x, dtype), asarray(xp, y, dtype), dtype)) <= 1, seed


@pytest.mark.parametrize("lead", [((), ()), ((3,), ()), ((), (3,)), ((2, 1), (3,))], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(6, 6), (5, 300)], ids=str)
def test_every_layout_keeps_it(monkeypatch, rng, lead, dtype, size):
    """Few rows are far away; blocks of few rows in cache, few pairs at once. The pairs that cancel are found."""
    monkeypatch.setattr(distances, "IN_CACHE", 64)
    monkeypatch.setattr(distances, "PAIRS", 32)
    x, y = (rng.standard_normal((*at, n, 4)) for at, n in zip(lead, size, strict=True))
    x[..., -1:, :] += 1e5
    y[..., -2:, :] += 1e5
    y[..., -4:-2, :] -= 1e5  # so that the mean is near 0, and few pairs cancel
    y[..., 0, :] = x.reshape(-1, 4)[-2] + 0.3
    x, y = x.astype(dtype), y.astype(dtype)
    kernel = rf.GaussianKernel()
    _, pairs = distances.Expansion.of(x, y, 1.0).values_and_cancelled(distances.SMALL)
    gram = kernel(x, y)
    assert 0 < 8 * len(pairs) <= gram.size
    for at in np.ndindex(gram.shape[:-2]):
        parts = (np.broadcast_to(z, (*gram.shape[:-2], *z.shape[-2:]))[at] for z in (x, y))
        assert np.max(np.abs(gram[at] - exact(kernel, *parts))) <= bounds(kernel, 4, dtype)[0]


def test_gradients_pass_through_corrected_pairs(torch):
    """Few pairs are near in clusters far apart: the slope of the sum is that of all differences."""
    x = np.arange(4.0)[:, None] * 30 + np.array([0.0, 1.0, 0.5])
    x = np.concatenate([x, x[:1] + 0.4])
    kernel = rf.RationalQuadraticKernel(0.7, 1.9)
    found = torch.asarray(x, requires_grad=True)
    kernel(found, found[[4, 1, 2, 3, 0, 1, 2, 3]]).sum().backward()
    expected = torch.asarray(x, requires_grad=True)
    kernel.pairwise(expected[:, None], expected[[4, 1, 2, 3, 0, 1, 2, 3]]).sum().backward()
    np.testing.assert_allclose(found.grad, expected.grad, atol=1e-12)


@pytest.mark.parametrize("mistake", ["SMALL", "SMALL_IN_DOUBLE"])
def test_an_expansion_that_cancels_is_seen(monkeypatch, mistake):
    """Larger squares than the proof allows; the clusters are such that many pairs are near, and few."""
    monkeypatch.setattr(distances, mistake, getattr(distances, mistake) * 1e6)
    found = [max(worst(rf.GaussianKernel(), *hostile(seed, 3, "float32"), "float32")) for seed in range(200)]
    assert max(found) > 1


@pytest.mark.parametrize("kernel", [*[*ISOTROPIC][:7], *SEPARABLE], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_length_scale_for_each_coordinate(xp, kernel, dtype):
    """Differences are divided: the bound is that of d + 2 coordinates; also of sums, products and multiples."""
    scales, inner = np.array([0.3, 1.7, np.inf]), np.array([1.1, 0.9, 2.0])
    for seed in range(4):
        x, y = hostile(seed, 3, dtype, shape=(7, 9))
        near = exact(kernel, x / scales.astype(np.longdouble) / inner, y / scales.astype(np.longdouble) / inner)
        both = rf.kernels.ArdKernel(rf.kernels.ArdKernel(kernel, tuple(inner)), tuple(scales))
        cases = {
            both: near,
            rf.kernels.ArdKernel(2.0 * kernel + kernel * kernel, tuple(scales * inner)): 2 * near + near * near,
        }
        gram, pairs = bounds(kernel, 5, dtype)
        for ard, expected in cases.items():
            with np.errstate(over="ignore", under="ignore"):
                a, b = asarray(xp, x, dtype), asarray(xp, y, dtype)
                found, found_pairs = to_numpy(ard(a, b)), to_numpy(ard.pairwise(a[:, None, :], b[None, :, :]))
            assert np.max(np.abs(found - expected)) <= 5 * gram, (seed, ard)
            assert np.max(np.abs(found_pairs - expected)) <= 5 * pairs, (seed, ard)


def test_numbers_out_of_range_stay_in_their_row():
    """NaN, also beside infinity, spoils its row; an infinite distance has the value 0."""
    x = np.array([[0.0, 1.0], [np.nan, np.inf], [np.inf, 0.0], [3e200, -3e200]])
    for kernel in KERNELS:
        with np.errstate(invalid="ignore", over="ignore"):
            gram, pairs = kernel(x, x[[0, 3]]), kernel.pairwise(x[:, None], x[[0, 3]])
        for values in (gram, pairs):
            assert np.all(np.isnan(values[1]))
            assert np.all(values[2] == 0)
            assert values[0, 0] == values[3, 1] == 1, kernel


OFFSETS = (0.0, 1.0, 1e2, 1e4, 1e6, 1e8)


def measured(kernel, dtype, offset, rng, size=317, dim=3):
    """Worst errors for `size²` pairs of random rows at an offset, and of rows half of which are there."""
    errors = []
    for share in (1.0, 0.5):
        x, y = (rng.standard_normal((size, dim)) + offset * (rng.random((size, 1)) < share) for _ in "xy")
        y[: size // 10] = x[: size // 10] + 10.0 ** rng.uniform(-9, 0, (size // 10, 1))
        errors.append(worst(kernel, x.astype(dtype), y.astype(dtype), dtype))
    return np.max(errors, axis=0)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_thousands_of_pairs_at_an_offset(dtype, offset, rng):
    for kernel in (rf.GaussianKernel(), rf.MaternKernel(1.5, 0.7), rf.LaplacianKernel(0.9)):
        assert np.max(measured(kernel, dtype, offset, rng, size=60)) <= 1


def main():
    print("worst error of 10^5 pairs in units of the bound: Gram matrix / pairwise")
    print("| kernel | dtype |", " | ".join(f"offset {offset:g}" for offset in OFFSETS), "|")
    for kernel in KERNELS:
        for dtype in ("float32", "float64"):
            rng = np.random.default_rng(0)
            cells = (measured(kernel, dtype, offset, rng) for offset in OFFSETS)
            print(f"| {kernel} | {dtype} |", " | ".join(f"{gram:.3f} / {pair:.3f}" for gram, pair in cells), "|")


if __name__ == "__main__":
    main()
