"""The contract itself: every estimator × coupling passes it, z-scores are standard normal, and it can fail."""

import dataclasses
import zlib

import numpy as np
import pytest
from scipy import stats

import randfeat as rf
from randfeat.testing import check_coupling, check_estimator
from tests.arrays import library
from tests.cases import COUPLINGS, ESTIMATORS, OPEN, OTHERS


def seed_of(estimator):
    """A seed of its own for each case, so that z-scores of different cases are independent."""
    return zlib.crc32(repr(estimator).encode())


# Kernels differ by an envelope of the features (see test_kernels_share_relative_errors), so one coupling each suffices.
CONTRACT = [e for e in ESTIMATORS if e.kernel == rf.SoftmaxKernel() or e.coupling == rf.Orthogonal()]
CONTRACT += OTHERS + OPEN


@pytest.mark.parametrize("estimator", CONTRACT, ids=repr)
def test_every_estimator_keeps_the_contract(estimator):
    """False alarm 1e-6 per case; a bias of 6 % and a variance off by 20 % are caught 999 times in 1000.

    The catalogue experiment runs the same check with the sharper defaults.
    """
    report = check_estimator(estimator, rng=seed_of(estimator), detectable_bias=0.06, detectable_variance=0.2)
    if estimator in OPEN:
        assert all("randfeat.montecarlo" in note for note in report.notes)
        assert report.notes
        return
    assert report.notes == ()
    assert len(report.checks) > 20
    assert max(check.detectable for check in report.checks if check.name.startswith("mean")) < 0.1


def test_z_scores_are_standard_normal():
    """The 99th percentile of |z| over all couplings with three estimators is that of a normal law, 2.576.

    z-scores within a case share draws and are correlated; cases are independent. With about 1200 z-scores, of which
    effectively a third count as independent, it lies within 2.2 .. 3.0 (false alarm below 1e-3, at a fixed seed).
    Standard errors a fifth too small or too large would leave that range.
    """
    z = np.concatenate(
        [
            check_estimator(
                cls(coupling=coupling), rng=seed_of((cls, coupling)), detectable_bias=0.1, detectable_variance=0.3
            ).z_scores
            for cls in (rf.PositiveFeatures, rf.HyperbolicFeatures, rf.TrigonometricFeatures)
            for coupling in COUPLINGS
        ]
    )
    assert z.size > 1000
    assert 2.2 < np.quantile(np.abs(z), 0.99) < 3.0
    assert abs(z.mean()) < 0.15
    assert 0.9 < z.std() < 1.1


@pytest.mark.parametrize("quarter", range(4))
def test_features_are_the_same_on_every_backend(xp, quarter):
    """In quarters, because JAX compiles every operation of every estimator.

    A coupling only draws the rows, in NumPy: under JAX the estimators of the softmax family come with one each.
    """
    family = [e for e in ESTIMATORS if library(xp) != "jax" or e.coupling == rf.Orthogonal()]
    cases = [(5, e) for e in family] + [(4, e) for e in OTHERS + OPEN]  # the others: parameters of dimension 4
    for dim, estimator in cases[quarter::4]:
        rf.testing.check_namespace(estimator, dim, estimator.num_features(8, dim), xp)


def test_report_reads_well():
    report = check_estimator(rf.PositiveFeatures(), num_rows=[4], rng=0)
    text = str(report)
    assert "PositiveFeatures" in text
    assert "mean, num_features=4, pair 0: z = " in text
    assert "would catch" in text
    assert report.worst == np.max(np.abs(report.z_scores)) < report.limit
    assert report.limit == pytest.approx(stats.norm.isf(1e-6 / (2 * 2 * 6)))


@dataclasses.dataclass(frozen=True)
class Undocumented(rf.PositiveFeatures):
    """Positive features."""


@dataclasses.dataclass(frozen=True)
class WrongSign(rf.TrigonometricFeatures):
    """Shapes: as its base. Exact. Error: as its base. Source: none."""

    positive = True


class NotExact(rf.PositiveFeatures):
    """Shapes: as its base. Exact. Error: as its base. Source: none."""

    def relative_covariance(self, x, y, law, *, same_row):
        return super().relative_covariance(x, y, law, same_row=same_row) * 1.2


class Boastful(rf.PositiveFeatures):
    def relative_covariance(self, x, y, law, *, same_row):
        return 0.7 * super().relative_covariance(x, y, law, same_row=same_row)


@dataclasses.dataclass(frozen=True)
class BoastfulAgain(Boastful):
    offset: float = 0.0


class Missing(rf.PositiveFeatures):
    def relative_covariance(self, x, y, law, *, same_row):
        return np.where(np.arange(6) == 3, np.nan, super().relative_covariance(x, y, law, same_row=same_row))


class MissingMean(rf.PositiveFeatures):
    def mean_over_reference(self, x, y, num_features):
        return np.full(len(x), np.nan)


class Crossed(rf.PositiveFeatures):
    def relative_row_mean(self, x, y, law):
        return np.ones((len(x), len(x)))


class OneNumber(rf.PositiveFeatures):
    def relative_row_mean(self, x, y, law):
        return 1.0


class Infinite(rf.PositiveFeatures):
    def relative_covariance(self, x, y, law, *, same_row):
        return np.full(np.broadcast_shapes(x.shape, y.shape)[:-1], np.inf)


class NoVariance(rf.PositiveFeatures):
    """Shapes: as its base. Exact. Error: as its base. Source: none."""

    def relative_covariance(self, x, y, law, *, same_row):
        raise rf.NoClosedForm("no closed form for this one; use randfeat.montecarlo.")


def test_the_contract_can_fail():
    with pytest.raises(AssertionError, match="does not state Shapes:, Exact, Error, Source"):
        check_estimator(Undocumented())
    with pytest.raises(AssertionError, match="declared positive, but a value is not"):
        check_estimator(WrongSign())
    with pytest.raises(AssertionError, match=r"checks beyond \|z\|[\s\S]*variance"):
        check_estimator(NotExact())
    with pytest.raises(TypeError, match="expected an Estimator, got FeatureMap"):
        check_estimator(rf.PositiveFeatures().draw(2, 2, rng=0))
    with pytest.raises(ValueError, match="ask for less, or check more features"):
        check_estimator(rf.PositiveFeatures(), detectable_bias=1e-5)


@pytest.mark.parametrize("cls", [Boastful, BoastfulAgain])
def test_subclasses_inherit_the_docstring_and_are_measured(cls):
    with pytest.raises(AssertionError, match=r"checks beyond \|z\|[\s\S]*variance"):
        check_estimator(cls(), num_rows=[4])


def test_moments_that_are_not_numbers_are_named():
    with pytest.raises(AssertionError, match=r"Missing.relative_covariance is NaN for pair 3, .*return np.inf"):
        check_estimator(Missing(), num_rows=[4])
    with pytest.raises(AssertionError, match=r"MissingMean.mean_over_reference is NaN for pair 0, "):
        check_estimator(MissingMean(), num_rows=[4])
    with pytest.raises(AssertionError, match=r"Crossed.relative_row_mean has shape \(6, 6\) for pairs \(6,\)"):
        check_estimator(Crossed(), num_rows=[4])
    with pytest.raises(ValueError, match=r"would need inf draws"):
        check_estimator(Infinite(), num_rows=[4])


def test_one_number_stands_for_all_pairs():
    x, y = np.random.default_rng(0).standard_normal((2, 5, 4)) / 4
    for pair in ((x, y), (x[:, None], y), (x[0], y[0])):
        mean, expected = (cls().mean(*pair) for cls in (OneNumber, rf.PositiveFeatures))
        np.testing.assert_array_equal(mean, expected)
        assert mean.shape == expected.shape
    assert (
        check_estimator(OneNumber(), num_rows=[4]).checks == check_estimator(rf.PositiveFeatures(), num_rows=[4]).checks
    )


def test_without_closed_form_the_mean_is_checked_and_the_report_says_so():
    report = check_estimator(NoVariance(), rng=0)
    assert report.notes == ("variance not checked: no closed form for this one; use randfeat.montecarlo.",)
    assert all(check.name.startswith("mean") for check in report.checks)


class Shrunk(rf.Independent):
    """Rows a twentieth too short."""

    def sample(self, num_rows, dim, *, rng, batch_shape=()):
        return 0.95 * super().sample(num_rows, dim, rng=rng, batch_shape=batch_shape)


class OnlyPairs(rf.Independent):
    """Rows and their negatives, without saying that only even numbers are possible."""

    def sample(self, num_rows, dim, *, rng=None, batch_shape=()):
        half = super().sample(num_rows // 2, dim, rng=rng, batch_shape=batch_shape)
        return np.concatenate([half, -half], axis=-2)


class OnlyReshaped(rf.Independent):
    """The same, with rows that are laid out by reshaping."""

    def sample(self, num_rows, dim, *, rng=None, batch_shape=()):
        half = super().sample(num_rows // 2, dim, rng=rng, batch_shape=batch_shape)
        return np.stack([half, -half], axis=-2).reshape(*batch_shape, num_rows, dim)


@pytest.mark.parametrize(
    ("coupling", "outcome"),
    [(OnlyPairs(), r"gave the shape \(0, 4\)"), (OnlyReshaped(), "raised ValueError: cannot reshape")],
)
def test_impossible_numbers_of_rows_are_named(coupling, outcome):
    message = f"expected 1 rows of dimension 4.*sample {outcome}.*Override nearest_num_rows"
    with pytest.raises(AssertionError, match=message):
        check_coupling(coupling)
    with pytest.raises(AssertionError, match=message):
        check_estimator(rf.PositiveFeatures(coupling=coupling))


def test_the_coupling_contract_can_fail():
    with pytest.raises(AssertionError, match=r"E\|w_0\|²"):
        check_coupling(Shrunk())
