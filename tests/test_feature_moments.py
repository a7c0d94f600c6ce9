"""Sums over data of products of features: the same from any blocks, parts and libraries."""

import itertools
import tracemalloc

import numpy as np
import pytest

import randfeat as rf
from randfeat.regression import feature_moments
from tests.arrays import asarray, eps_of, library, same_bits, to_numpy

FIELDS = ("gram", "cross", "feature_sum", "target_sum", "target_gram")


def draw(width=8, dtype="float64", batch_shape=()):
    estimator = rf.TrigonometricFeatures(rf.GaussianKernel())
    return estimator.draw(3, width, rng=0, like=np.zeros(1, dtype), batch_shape=batch_shape)


def naive(phi, x, y):
    """The sums from all features at once, in float64, and from their sizes."""

    def sums(z, y):
        return np.swapaxes(z, -1, -2) @ z, np.swapaxes(z, -1, -2) @ y, z.sum(-2), y.sum(0), y.T @ y

    z, y = to_numpy(phi(x)), to_numpy(y)
    return sums(z, y), sums(np.abs(z), np.abs(y))


def check(moments, phi, x, y, dtype="float64"):
    """Each sum of n terms is within (n + 8) eps of the sum of their sizes; 8 for the features themselves."""
    assert moments.count == len(x)
    for name, expected, size in zip(FIELDS, *naive(phi, x, y), strict=True):
        actual = to_numpy(getattr(moments, name))
        assert actual.shape == expected.shape, name
        assert np.all(np.abs(actual - expected) <= (len(x) + 8) * eps_of(dtype) * size), name
    assert same_bits(moments.gram, np.swapaxes(to_numpy(moments.gram), -1, -2))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of seven rows."""
    monkeypatch.setattr(feature_moments, "SHORTEST", 7)
    monkeypatch.setattr(feature_moments, "LONGEST", 7)


def centered(moments):
    """What regression with an intercept needs of the targets: covariances with the features, and squares."""
    mean = moments.centered_sum / moments.count
    cross = moments.centered_cross - moments.feature_sum[:, None] * mean
    return to_numpy(cross), to_numpy(moments.centered_gram - moments.count * mean[:, None] * mean)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8, 1.7e9])
@pytest.mark.parametrize("seed", range(4))
def test_random_parts_and_merges_keep_covariances_of_far_targets(xp, offset, seed):
    """Any cuts, empty ones too, appended and merged in any tree: the errors are those of y, not of its mean.

    y is rounded to eps times the offset; 10 times that, times the sum of the sizes, bounds the rest.
    """
    if library(xp) == "jax" and seed > 0:
        pytest.skip("each cut is new shapes, which JAX compiles")
    rng = np.random.default_rng(seed)
    phi = draw()
    x, y = rng.standard_normal((40, 3)), rng.standard_normal((40, 2)) * [1.0, 3.0]
    far = (y + offset) - offset
    z = phi(x) - phi(x).mean(0)
    near = far - far.mean(0)
    there = phi.to(xp.asarray(x))
    cuts = [0, *sorted(rng.integers(0, 41, 5).tolist()), 40]
    parts = [rf.FeatureMoments.empty(there, 2)]
    for start, stop in itertools.pairwise(cuts):
        rows = xp.asarray(x[start:stop]), xp.asarray(y[start:stop] + offset)
        if rng.random() < 0.5:
            parts.append(rf.FeatureMoments.of(there, *rows))
        else:
            parts[-1] = parts[-1].append(*rows)
    while len(parts) > 1:
        i = int(rng.integers(len(parts) - 1))
        parts[i : i + 2] = [parts[i].merge(parts[i + 1])]
    cross, squares = centered(parts[0])
    assert parts[0].count == 40
    tolerance = 40 * 10 * eps_of("float64") * (10 + offset)
    np.testing.assert_allclose(cross, z.T @ near, rtol=0, atol=tolerance)
    np.testing.assert_allclose(squares, near.T @ near, rtol=0, atol=10 * tolerance)
    check(parts[0], phi, x, y + offset)


@pytest.fixture(params=[1, 1024], ids=["rank update", "sum of products"])
def _update(request, monkeypatch):
    """Both ways to add a block, and tiles of three features, so that the eight of a map are in three tiles."""
    monkeypatch.setattr(feature_moments, "RANK_UPDATE", request.param)
    monkeypatch.setattr(feature_moments, "MIRRORED", 3)


@pytest.mark.usefixtures("small_blocks", "_update")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_shape", [(), (2,), (2, 1)])
def test_sums(rng, dtype, batch_shape):
    phi = draw(dtype=dtype, batch_shape=batch_shape)
    for length in (0, 1, 7, 24):
        x, y = (rng.standard_normal((length, k)).astype(dtype) for k in (3, 2))
        moments = rf.FeatureMoments.of(phi, x, y)
        assert all(getattr(moments, name).dtype == dtype for name in FIELDS)
        check(moments, phi, x, y, dtype)


@pytest.mark.usefixtures("small_blocks", "_update")
def test_parts_of_the_data(rng):
    """Cut anywhere, appended or merged: the sums are those of all rows; what they came from is as it was."""
    phi = draw()
    x, y = rng.standard_normal((30, 3)), rng.standard_normal((30, 2))
    for cut in (0, 1, 13, 30):
        first, second = (rf.FeatureMoments.of(phi, x[part], y[part]) for part in (slice(cut), slice(cut, None)))
        before = [getattr(first, name).copy() for name in FIELDS]
        check(first.append(x[cut:], y[cut:]), phi, x, y)
        check(first.merge(second), phi, x, y)
        check(second.merge(first), phi, x, y)
        check(rf.FeatureMoments.empty(phi, 2).merge(first).append(x[cut:], y[cut:]), phi, x, y)
        assert all(same_bits(getattr(first, name), old) for name, old in zip(FIELDS, before, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1024, 1100])
def test_sums_of_a_thousand_features(rng, dtype, width):
    """The real thresholds: a rank update of one triangle, tiles of 128 that are mirrored; appended and merged."""
    assert width >= feature_moments.RANK_UPDATE > 4 * feature_moments.MIRRORED
    phi = draw(width, dtype)
    x, y = (rng.standard_normal((40, k)).astype(dtype) for k in (3, 2))
    parts = [rf.FeatureMoments.of(phi, x[part], y[part]) for part in (slice(15), slice(15, None))]
    for moments in (parts[0].append(x[15:], y[15:]), parts[1].merge(parts[0])):
        check(moments, phi, x, y, dtype)


def tiles_on_the_diagonal_only(gram):
    """The slip that tests with one tile do not see."""
    for start in range(0, gram.shape[-1], feature_moments.MIRRORED):
        part = slice(start, start + feature_moments.MIRRORED)
        corner = np.triu(gram[..., part, part])
        gram[..., part, part] = corner + np.swapaxes(np.triu(corner, k=1), -1, -2)
    return gram


def tiles_below_as_they_are(gram):
    """The tiles below, without their transposition."""
    tiles_on_the_diagonal_only(gram)
    size = feature_moments.MIRRORED
    for start in range(0, gram.shape[-1] - size, size):
        below, above = gram[..., start + size :, start : start + size], gram[..., start : start + size, start + size :]
        below[...] = np.resize(above, below.shape)
    return gram


@pytest.mark.parametrize("mistake", ["first row", np.triu, tiles_on_the_diagonal_only, tiles_below_as_they_are])
@pytest.mark.parametrize("width", [8, 1024])
def test_mistakes_are_seen(monkeypatch, rng, mistake, width):
    """In three small tiles, and at the real thresholds; a rank update leaves zeros below."""
    if width == 8:
        monkeypatch.setattr(feature_moments, "RANK_UPDATE", 1)
        monkeypatch.setattr(feature_moments, "MIRRORED", 3)
    phi = draw(width)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 1))
    check(rf.FeatureMoments.of(phi, x, y), phi, x, y)
    add = feature_moments.add_gram
    if mistake == "first row":
        monkeypatch.setattr(feature_moments, "add_gram", lambda total, block: add(total, block[..., 1:, :]))
    else:
        monkeypatch.setattr(feature_moments, "mirrored", mistake)
    with pytest.raises(AssertionError):
        check(rf.FeatureMoments.of(phi, x, y), phi, x, y)


@pytest.mark.usefixtures("small_blocks")
def test_every_library(xp, rng):
    x, y = rng.standard_normal((21, 3)), rng.standard_normal(21)
    phi = draw()
    there = phi.to(xp.asarray(x))
    first, second = (slice(7), slice(7, None))  # all blocks of one shape, which JAX compiles once
    moments = rf.FeatureMoments.of(there, xp.asarray(x[first]), xp.asarray(y[first]))
    moments = moments.append(xp.asarray(x[second]), xp.asarray(y[second]))
    assert type(moments.gram) is type(xp.asarray(x))
    expected = rf.FeatureMoments.of(phi, x, y)
    for name in FIELDS:
        np.testing.assert_allclose(to_numpy(getattr(moments, name)), getattr(expected, name), atol=1e-13)
    assert rf.FeatureMoments.empty(there).cross.shape == (8, 0)


def test_half_precision_is_computed_in_float32(rng):
    x = asarray(np, rng.standard_normal((20, 3)), "float16")
    moments = rf.FeatureMoments.of(draw().to(x), x)
    rounded = to_numpy(x)
    assert "float32" in str(moments.gram.dtype)
    np.testing.assert_allclose(to_numpy(moments.gram), rf.FeatureMoments.of(draw(), rounded).gram, atol=1e-4)


def test_double_sums_of_single_features(rng):
    """They keep what float32 sums lose: one feature near 1/2, many times."""
    x = np.zeros((2**14, 3), np.float32)
    phi = draw(dtype="float32")
    exact = len(x) * float(phi(x[:1])[0, 0]) ** 2
    moments = rf.FeatureMoments.of(phi, x, x[:, :1], dtype="float64")
    assert moments.gram.dtype == moments.cross.dtype == np.float64
    assert abs(moments.gram[0, 0] / exact - 1) < 1e-12


@pytest.mark.parametrize("batch_shape", [(), (2,)], ids=str)
def test_files(xp, rng, tmp_path, batch_shape):
    """Saved halfway and loaded for a library, the rest of the rows ends in the same sums, in float64 and weighted."""
    x, y, weights = (rng.standard_normal(shape) for shape in ((40, 3), (40, 2), (40,)))
    weights = np.abs(weights)
    like = asarray(xp, x, "float32")
    phi = rf.PositiveFeatures().draw(3, 6, rng=0, batch_shape=batch_shape, like=np.float32(0))
    half = rf.FeatureMoments.of(phi, x[:20], y[:20] + 1e5, sample_weight=weights[:20], dtype="float64")
    rf.save(tmp_path / "moments.npz", half)
    again = rf.load(tmp_path / "moments.npz")
    rest = (x[20:], y[20:] + 1e5), {"sample_weight": weights[20:]}
    for mine, other in ((again, half), (again.append(*rest[0], **rest[1]), half.append(*rest[0], **rest[1]))):
        assert (mine.count, mine.num_rows) == (other.count, other.num_rows)
        assert mine.features.fingerprint == other.features.fingerprint
        assert all(same_bits(getattr(mine, name), getattr(other, name)) for name in (*FIELDS, "origin"))
    moved = rf.load(tmp_path / "moments.npz", like=like)
    for name in FIELDS[::2]:
        found = getattr(moved, name)
        assert type(found) is type(like)
        assert same_bits(to_numpy(found), getattr(half, name))
    given = [asarray(xp, part, "float32") for part in rest[0]]
    after = moved.append(*given, sample_weight=asarray(xp, rest[1]["sample_weight"]))
    expected = half.append(*(part.astype(np.float32) for part in rest[0]), **rest[1])
    np.testing.assert_allclose(to_numpy(after.gram), expected.gram, rtol=1e-5)


def test_regression_from_moments_is_that_from_all_features(rng):
    """Weights, means taken out, and the sum of squared residuals, all from the sums."""
    phi = draw(16)
    x = rng.standard_normal((200, 3))
    y = np.sin(x @ rng.standard_normal((3, 2))) + 3.0
    m = rf.FeatureMoments.of(phi, x, y)
    mean_z, mean_y = m.feature_sum / m.count, m.target_sum / m.count
    gram = m.gram - m.count * np.outer(mean_z, mean_z)
    cross = m.cross - m.count * np.outer(mean_z, mean_y)
    beta = np.linalg.solve(gram + 0.1 * np.eye(16), cross)
    z = phi(x) - phi(x).mean(0)
    stacked = np.concatenate([z, np.sqrt(0.1) * np.eye(16)]), np.concatenate([y - y.mean(0), np.zeros((16, 2))])
    np.testing.assert_allclose(beta, np.linalg.lstsq(*stacked)[0], rtol=1e-8, atol=1e-9)
    residual = m.target_gram - m.count * np.outer(mean_y, mean_y) - 2 * cross.T @ beta + beta.T @ gram @ beta
    np.testing.assert_allclose(np.diagonal(residual), np.sum((y - y.mean(0) - z @ beta) ** 2, axis=0), rtol=1e-9)


def test_features_are_there_for_one_block_only():
    phi = draw(512, "float32")
    x = np.zeros((5 * feature_moments.LONGEST, 3), np.float32)
    rf.FeatureMoments.of(phi, x[:600])
    tracemalloc.start()
    try:
        rf.FeatureMoments.of(phi, x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * 4 * feature_moments.LONGEST * 512 < 4 * len(x) * 512


def test_errors():
    phi, x = draw(), np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3\), got \(2, 4, 3\)"):
        rf.FeatureMoments.of(phi, np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match=r"y must have shape \(4, 2\).*got \(5, 2\)"):
        rf.FeatureMoments.of(phi, x, np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"y must have shape \(4, 1\).*got None"):
        rf.FeatureMoments.of(phi, x, np.zeros(4)).append(x)
    with pytest.raises(ValueError, match=r"got \(4, 1, 1\)"):
        rf.FeatureMoments.of(phi, x, np.zeros((4, 1, 1)))
    with pytest.raises(ValueError, match='dtype must be "float32", "float64" or None'):
        rf.FeatureMoments.of(phi, x, dtype="float16")
    with pytest.raises(ValueError, match="num_targets must be an integer, 0 or more"):
        rf.FeatureMoments.empty(phi, -1)
    with pytest.raises(ValueError, match="expected as many targets, got 0 and 1"):
        rf.FeatureMoments.of(phi, x).merge(rf.FeatureMoments.of(phi, x, np.zeros(4)))
    other = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(3, 8, rng=1)
    with pytest.raises(ValueError, match="moments of different feature maps"):
        rf.FeatureMoments.of(phi, x).merge(rf.FeatureMoments.of(other, x))
    with pytest.raises(TypeError, match="use queries, keys"):
        rf.FeatureMoments.of(rf.CenteredFeatures(query_shift=np.ones(3)).draw(3, 8, rng=0), x)


def test_mixed_libraries_are_refused(torch):
    with pytest.raises(TypeError, match="one"):
        rf.FeatureMoments.of(draw(), np.zeros((4, 3)), torch.zeros(4))
    with pytest.raises(TypeError, match="one array library"):
        rf.FeatureMoments.of(draw(), torch.zeros((4, 3)))
