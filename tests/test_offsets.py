"""Maps about a row: kernels of x - y lose no digit to an offset of the data."""

import numpy as np
import pytest

import randfeat as rf
from randfeat._numpy import blockwise
from tests.arrays import asarray, eps_of, same_bits, to_numpy

MAPS = {
    "pairs": rf.TrigonometricFeatures(rf.GaussianKernel(0.7)),
    "phases": rf.SpectralFeatures(rf.MaternKernel(1.5), variant="phase"),
    "Cauchy": rf.SpectralFeatures(rf.CauchyKernel(), "independent"),
    "positive": rf.PositiveFeatures(rf.GaussianKernel(1.4)),
    "sum": rf.TrigonometricFeatures(rf.GaussianKernel(2.0)) + 2.0 * rf.SpectralFeatures(rf.MaternKernel(2.5)),
    "quadrature": rf.TrigonometricFeatures(rf.GaussianKernel(), rf.GaussHermite(nodes=2)),
}
WIDTH = 16
ROW = np.array([1e6, -3e4, 0.0])  # numbers that float32 has, as are those of x


def far(n, dtype="float64", seed=0):
    return (np.random.default_rng(seed).integers(-32, 33, (n, 3)) / 16 + ROW).astype(dtype)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_features_are_those_of_the_difference(xp, name, dtype):
    """Plain features, queries, keys, estimates, gradients; also of a batch of maps; to the rounding of angles of 10."""

    def same(found, expected):
        found, expected = to_numpy(found), to_numpy(expected)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=60 * eps_of(dtype) * np.max(np.abs(expected)))

    phi = MAPS[name].draw(3, WIDTH, rng=0, like=asarray(xp, [0.0], dtype), batch_shape=(2,))
    about, x, near = phi.about(ROW), asarray(xp, far(5), dtype), asarray(xp, far(5) - ROW, dtype)
    same(about(x), phi(near))
    same(about.keys(x).to_array(), phi.keys(near).to_array())
    same(about.estimate(x, x), phi.estimate(near, near))
    features = phi.queries(near)
    if name != "sum":  # which has no analytic gradient
        gradient = xp.ones_like(features.values)
        same(about.pull_back(x, features, gradient), phi.pull_back(near, features, gradient))
    same(about(x), phi.to(np.empty(0))(far(5) - ROW))


@pytest.mark.parametrize("name", ["pairs", "phases", "positive", "quadrature"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_of_numpy_arrays_are_shifted_too(monkeypatch, name, dtype):
    monkeypatch.setattr("randfeat.maps.LEAST", 1)
    monkeypatch.setattr("randfeat.maps.SHORTEST", 1)
    monkeypatch.setattr(blockwise, "BLOCK", 64)
    phi = MAPS[name].draw(3, WIDTH, rng=0, like=np.zeros(1, dtype))
    assert phi._forms(far(300, dtype)) is not None
    x, near = far(300, dtype), (far(300) - ROW).astype(dtype)
    assert same_bits(phi.about(ROW)(x), phi(near))


@pytest.mark.parametrize("name", ["pairs", "positive"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_with_a_map_about_a_row(name, is_causal):
    """Gaussian attention is as shift-invariant as its kernel; and so are its gradients."""
    q, k = far(300, seed=1)[None], far(300, seed=2)[None]
    v = np.random.default_rng(3).standard_normal((1, 300, 2))
    phi = MAPS[name].draw(3, 32, rng=0)
    options = {"is_causal": is_causal, "scale": 1.0}
    for function in (rf.linear_attention, lambda *a, **o: rf.linear_attention_vjp(*a, v, **o)[1]):
        found, expected = function(q, k, v, phi.about(ROW), **options), function(q - ROW, k - ROW, v, phi, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.max(np.abs(expected)))


def test_the_row_belongs_to_the_map(tmp_path, torch):
    """Its fingerprint, what is saved, moved and drawn again; moments about another row are others."""
    phi = MAPS["pairs"].draw(3, WIDTH, rng=0)
    about = phi.about(ROW)
    assert phi.fingerprint != about.fingerprint != phi.about(ROW + 1).fingerprint
    assert about.to(torch.zeros(1)).fingerprint == about.fingerprint
    assert same_bits(about.about(ROW + 1)(far(4)), phi.about(ROW + 1)(far(4)))
    assert same_bits(about.redraw(3)(far(4)), phi.redraw(3).about(ROW)(far(4)))
    rf.save(tmp_path / "map.npz", about)
    assert same_bits(rf.load(tmp_path / "map.npz")(far(4)), about(far(4)))
    assert about.exponential_form(keys=False) is about.fourier_form() is None
    with pytest.raises(ValueError, match="different feature maps"):
        rf.FeatureMoments.of(phi, far(4)).merge(rf.FeatureMoments.of(about, far(4)))


def test_the_row_is_the_same_in_every_dtype():
    """A row that float32 does not have is rounded, or float32 inputs would be about another row than float64 ones."""
    phi = MAPS["pairs"].draw(3, 512, rng=0, like=np.zeros(1, np.float32))
    about = phi.about(ROW + 0.013)
    x = far(6, np.float32)
    np.testing.assert_allclose(about(x), about(x.astype(float)), atol=1e-6)


def test_half_precision_has_the_row_too(xp):
    phi = MAPS["pairs"].draw(3, WIDTH, rng=0)
    row = np.array([64.0, -32.0, 0.0])
    x = row + np.random.default_rng(0).integers(-16, 17, (5, 3)) / 16
    found = phi.to(asarray(xp, x, "float32")).about(row)(asarray(xp, x, "float16"))
    np.testing.assert_allclose(to_numpy(found), phi(x - row), atol=2 * eps_of("float16"))


def test_errors():
    phi = MAPS["pairs"].draw(3, WIDTH, rng=0)
    with pytest.raises(ValueError, match=r"row must have shape \(3,\), got \(1, 3\)"):
        phi.about(ROW[None])
    with pytest.raises(ValueError, match="row must be finite numbers of float32"):
        phi.about([0.0, np.nan, 1.0])
    for estimator in (
        rf.PositiveFeatures(),
        rf.ArcCosineFeatures(),
        rf.TrigonometricFeatures() + rf.PositiveFeatures(),
    ):
        with pytest.raises(ValueError, match="a reference row needs a kernel that depends on x - y only"):
            estimator.draw(3, 8, rng=0).about(ROW)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (rf.GaussianKernel(), True), (rf.MaternKernel(), True), (rf.LaplacianKernel(), True),
        (2.0 * rf.GaussianKernel() * rf.CauchyKernel() + rf.ExponentialKernel(), True),
        (rf.kernels.ArdKernel(rf.GaussianKernel(), (1.0, None, 2.0)), True),
        (rf.GaussianKernel() + rf.SoftmaxKernel(), False), (rf.SoftmaxKernel(), False),
        (rf.GaussianKernel() * rf.PolynomialKernel(), False), (rf.AngularKernel(), False),
        (rf.NormalizedSoftmaxKernel(), False),
    ],
    ids=repr,
)  # fmt: skip
def test_kernels_say_whether_they_are_shift_invariant(kernel, expected, rng):
    x, y = rng.standard_normal((2, 5, 3))
    assert kernel.shift_invariant is expected
    assert np.allclose(kernel.pairwise(x + 1.5, y + 1.5), kernel.pairwise(x, y), rtol=1e-9) is expected
