"""Couplings: the contract for every one, and what distinguishes each."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.couplings.base import haar_rows, resolve_coupling
from tests.cases import COUPLINGS


@pytest.mark.parametrize("coupling", COUPLINGS, ids=repr)
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_contract(coupling, dim):
    """False alarm 1e-6 per case; 20 000 draws see 9 % in a second moment of one row, 999 times in 1000."""
    report = rf.testing.check_coupling(coupling, dim=dim, rng=np.random.SeedSequence([dim, 7]))
    assert len(report.checks) > 10


@pytest.mark.parametrize("coupling", COUPLINGS, ids=repr)
def test_batch_entries_are_separate_draws(coupling):
    rows = coupling.sample(4, 3, rng=np.random.default_rng(0), batch_shape=(2, 3))
    assert rows.shape == (2, 3, 4, 3)
    assert len(np.unique(np.round(rows[..., 0, 0], 9))) == 6


@pytest.mark.parametrize("coupling", COUPLINGS, ids=repr)
def test_couplings_are_values(coupling):
    assert coupling == eval(repr(coupling), vars(rf).copy())
    assert hash(coupling) == hash(eval(repr(coupling), vars(rf).copy()))
    with pytest.raises(AttributeError):
        coupling.anything = 1


@pytest.mark.parametrize("num_rows", [1, 3, 4, 7, 8, 9])
def test_orthogonal_blocks(num_rows):
    """Orthogonal inside blocks of d, not across; counts of pairs J d (d-1) + r (r-1)."""
    dim = 4
    rows = rf.Orthogonal().sample(num_rows, dim, rng=np.random.default_rng(1))
    gram = rows @ rows.T
    block = np.arange(num_rows) // dim
    within = (block[:, None] == block[None, :]) & ~np.eye(num_rows, dtype=bool)
    rounding = 64 * np.finfo(float).eps * np.max(np.diagonal(gram))
    assert np.all(np.abs(gram[within]) < rounding)
    assert np.all(np.abs(gram[block[:, None] != block[None, :]]) > rounding)
    assert sum(count for count, _ in rf.Orthogonal().pair_laws(num_rows, dim)) == within.sum()


def test_constant_norms_have_length_root_d():
    rows = rf.Orthogonal(norms="constant").sample(7, 4, rng=np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 2.0, rtol=1e-14)
    assert not rf.Orthogonal(norms="constant").exact_marginals
    assert not rf.Antithetic(rf.Orthogonal(norms="constant")).exact_marginals


@pytest.mark.parametrize(("dim", "num_rows"), [(4, 4), (4, 7), (3, 2), (5, 3)])
def test_simplex_directions(dim, num_rows):
    rows = rf.Simplex().sample(num_rows, dim, rng=np.random.default_rng(2))
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for start in range(0, num_rows, dim):
        block = directions[start : start + dim]
        size = len(block)
        expected = np.full((size, size), -1 / (size - 1)) if size > 1 else np.ones((1, 1))
        np.fill_diagonal(expected, 1.0)
        np.testing.assert_allclose(block @ block.T, expected, atol=1e-14)


def test_centered_rows_sum_to_zero():
    rows = rf.CenteredGaussian().sample(5, 3, rng=np.random.default_rng(0))
    np.testing.assert_allclose(rows.sum(axis=0), 0.0, atol=1e-14)


def test_antithetic_needs_pairs():
    with pytest.raises(ValueError, match="even number of rows, got 3"):
        rf.Antithetic().sample(3, 2, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"cannot have 7 features; nearest: 6, 8"):
        rf.PositiveFeatures(coupling="antithetic").draw(3, 7, rng=0)
    with pytest.raises(ValueError, match=r"nearest: 4, 8"):
        rf.HyperbolicFeatures(coupling="antithetic").draw(3, 6, rng=0)
    with pytest.raises(ValueError, match=r"nearest: 2"):
        rf.PositiveFeatures(coupling="antithetic").draw(3, 1, rng=0)


def test_antithetic_positive_is_hyperbolic():
    """Positive features on rows ±w have the variance of hyperbolic ones on the rows w, whatever their coupling."""
    x, y = np.random.default_rng(0).standard_normal((2, 6, 4)) / 3
    for base in (rf.Independent(), rf.Orthogonal(), rf.Simplex(), rf.Orthogonal(norms="constant")):
        doubled = rf.PositiveFeatures(coupling=rf.Antithetic(base)).relative_variance(x, y, num_features=12)
        hyperbolic = rf.HyperbolicFeatures(coupling=base).relative_variance(x, y, num_features=12)
        np.testing.assert_allclose(doubled, hyperbolic, rtol=1e-12)


def test_haar_rows_are_orthonormal_and_have_no_preferred_sign():
    """First coordinates of a Haar matrix are symmetric: of 4000 signs the sum is within 6 standard deviations of 0.

    False alarm 2e-9. Unfixed LAPACK factors have one sign always (sum ±4000).
    """
    q = haar_rows(3, 5, rng=np.random.default_rng(0), batch_shape=(4000,))
    gram = q @ np.swapaxes(q, -1, -2)
    assert np.max(np.abs(gram - np.eye(3))) < 1e-13
    for entry in np.ndindex(3, 5):
        assert abs(np.sum(np.sign(q[(slice(None), *entry)]))) < 6 * np.sqrt(4000)


def test_names():
    assert resolve_coupling("orthogonal") == rf.Orthogonal()
    assert resolve_coupling("antithetic-orthogonal") == rf.Antithetic(rf.Orthogonal())
    with pytest.raises(ValueError, match="unknown coupling 'orthogonl'; expected one of 'antithetic'"):
        rf.PositiveFeatures(coupling="orthogonl")
    with pytest.raises(TypeError, match="coupling must be a Coupling or its name, got int"):
        rf.PositiveFeatures(coupling=3)
    with pytest.raises(ValueError, match="norms must be 'chi' or 'constant'"):
        rf.Orthogonal(norms="unit")
