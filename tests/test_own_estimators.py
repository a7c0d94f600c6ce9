"""Estimators that users write: formula and moments are enough, widths are found, infinite moments are said so."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

import randfeat as rf
from randfeat.estimators import ExponentialEstimator
from randfeat.features import ExponentialForm
from tests.cases import COUPLINGS, ESTIMATORS, OPEN, OTHER_COUPLINGS, OTHERS

DIM, WIDEST = 4, 60


@dataclass(frozen=True)
class Tilted(ExponentialEstimator):
    """Positive features times `e^{c·x}` for queries and `e^{-c·y}` for keys, c = (shift, ..., shift).

    Shapes: (..., n, d) -> log_scale (..., n, m). Exact: the mean is `e^{c·(x-y)}` times the kernel, so it is biased.
    Error: the variance of positive features times `e^{2c·(x-y)}`. Source: none, a case with two forms.
    """

    shift: float = 0.5

    symmetric = False

    def exponential_form(self, arrays, *, keys):
        rows = arrays["rows"]
        shift = -self.shift if keys else self.shift
        return ExponentialForm(
            rows,
            -math.log(rows.shape[-2]) / 2,
            per_row=lambda x: shift * x.sum(-1)[..., None] + self.kernel.log_gaussian(x),
            row_slope=lambda x: shift + self.kernel.log_gaussian_slope(x),
        )

    def relative_row_mean(self, x, y, law):
        return np.exp(self.shift * np.sum(x - y, axis=-1)) * law.row_mean(np.sum((x + y) ** 2, axis=-1))

    def relative_covariance(self, x, y, law, *, same_row):
        factor = np.exp(2 * self.shift * np.sum(x - y, axis=-1))
        return factor * law.covariance(np.sum((x + y) ** 2, axis=-1))


def test_formula_and_moments_are_enough(rng):
    """Features, gradients and the way by blocks of attention follow from the form of queries and that of keys."""
    phi = Tilted(rf.GaussianKernel(1.3)).draw(DIM, 9, rng=0)
    x, direction = rng.standard_normal((2, 5, DIM))
    for keys in (False, True):
        unit = x / 1.3
        features = phi.keys(x) if keys else phi.queries(x)
        shifted = (-0.5 if keys else 0.5) * unit.sum(-1)[:, None] - (unit**2).sum(-1)[:, None] - math.log(9) / 2
        np.testing.assert_allclose(features.log_scale, unit @ phi.arrays["rows"].T + shifted, rtol=1e-13)
        gradient = phi.pull_back(x, features, np.ones((5, 9)), keys=keys)
        ends = [(phi.keys if keys else phi.queries)(x + s * 1e-5 * direction).log_scale.sum() for s in (1, -1)]
        assert np.sum(gradient * direction) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)
    rf.testing.check_estimator(Tilted(shift=0.2), num_rows=[5])
    query, key, value = rng.standard_normal((3, 300, DIM)) / 2
    phi = Tilted().draw(DIM, 64, rng=0)
    assert phi.exponential_form(keys=True) is not None
    weights = phi.estimate(query / DIM**0.25, key / DIM**0.25)
    expected = weights @ value / weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(rf.linear_attention(query, key, value, phi), expected, rtol=1e-10, atol=1e-12)


class Halved:
    """Not an estimator: changes the features of whatever it stands before."""

    def query_features(self, arrays, x):
        return super().query_features(arrays, x).scaled(-math.log(2))


@pytest.mark.parametrize("base", [rf.PositiveFeatures, rf.TrigonometricFeatures, rf.CenteredFeatures])
def test_a_form_is_not_believed_where_features_were_changed(base):
    class Changed(Halved, base):
        pass

    class Again(Changed):
        pass

    for cls in (Changed, Again):
        phi = cls().draw(DIM, 8, rng=0)
        assert phi.exponential_form(keys=False) is None
        assert phi.fourier_form() is None
    plain = base().draw(DIM, 8, rng=0)
    assert (plain.exponential_form(keys=False) or plain.fourier_form()) is not None


@pytest.mark.parametrize("estimator", [*ESTIMATORS[::9], *OTHERS, *OPEN], ids=repr)
def test_nearest_widths_are_the_neighbors_that_can_be_drawn(estimator):
    """`num_rows` accepts the widths that are their own neighbor, and refuses the others; neighbors are among these."""
    possible = []
    for width in range(1, WIDEST + 1):
        if estimator.nearest_num_features(width, DIM) == (width,):
            assert estimator.num_features(estimator.num_rows(width, DIM), DIM) == width
            possible.append(width)
        else:
            with pytest.raises(ValueError, match=f"cannot have {width} features; nearest: "):
                estimator.num_rows(width, DIM)
    assert possible
    for width in range(1, possible[-1] + 1):
        below = [w for w in possible if w <= width][-1:]
        above = [w for w in possible if w >= width][:1]
        assert estimator.nearest_num_features(width, DIM) == tuple(sorted({*below, *above}))
    assert estimator.draw(DIM, possible[0], rng=0).queries(np.zeros((2, DIM))).values.shape == (2, possible[0])


def test_nearest_widths_ask_for_a_number():
    with pytest.raises(ValueError, match="num_features must be a positive integer, got 0"):
        rf.PositiveFeatures().nearest_num_features(0)
    with pytest.raises(ValueError, match="num_features must be a positive integer, got -3"):
        (rf.PositiveFeatures() * rf.PositiveFeatures()).nearest_num_features(-3)
    with pytest.raises(ValueError, match=r"3\^20 rows in dimension 20.*use another coupling"):
        rf.PositiveFeatures(coupling=rf.GaussHermite()).nearest_num_features(9, 20)
    with pytest.raises(ValueError, match="control variates need rows of equal weight"):
        rf.ControlVariateFeatures(coupling=rf.GaussHermite(nodes=2)).nearest_num_features(22, DIM)


@dataclass(frozen=True)
class HeavyTailed(rf.estimators.SoftmaxEstimator):
    """Features whose second moment is infinite at every pair but x = -y."""

    coupling: rf.Coupling | str = field(default_factory=rf.Independent)

    def query_features(self, arrays, x):
        return rf.PositiveFeatures().query_features(arrays, x)

    def relative_row_mean(self, x, y, law):
        return law.row_mean(np.sum((x + y) ** 2, axis=-1))

    def relative_covariance(self, x, y, law, *, same_row):
        return np.where(np.all(x + y == 0, axis=-1), 0.0, np.inf)


def test_infinite_moments_stay_infinite():
    """Beside finite ones, in sums, products, multiples, and at moved inputs."""
    x, y = np.full(3, 0.5), np.array([[0.5, 0.5, 0.5], [-0.5, -0.5, -0.5]])
    plain = HeavyTailed()
    moved = rf.CenteredFeatures(base=plain, query_shift=np.full(3, 0.1), key_shift=np.full(3, -0.1))
    for estimator in (plain, 2.0 * plain, moved):
        for moment in (estimator.variance, estimator.relative_variance, estimator.mse, estimator.relative_mse):
            np.testing.assert_array_equal(moment(x, y, num_features=8), [np.inf, 0.0])
    for estimator in (plain + rf.PositiveFeatures(), plain * rf.PositiveFeatures()):
        np.testing.assert_array_equal(estimator.variance(x, y, num_features=16), [np.inf, 0.0])
    with pytest.raises(ValueError, match="does not reach a relative MSE"):
        rf.num_features_for(plain, x, y[0])


class TooShort(rf.PositiveFeatures):
    """Rows with half the variance, a = 1/8: the second moment of their weights is infinite, the mean is not."""

    def relative_row_mean(self, x, y, law):
        return law.tilted_row_mean(x + y, np.array([1 / 8]))

    def relative_covariance(self, x, y, law, *, same_row):
        return law.tilted_covariance(x + y, np.array([1 / 8]))


def test_tilts_without_a_second_moment_have_infinite_variance():
    x, y = np.full((2, 3), 0.2), np.array([[0.1, 0.2, 0.3], [-0.2, -0.2, -0.2]])
    for coupling in (*COUPLINGS[:3], "antithetic"):
        estimator = TooShort(coupling=coupling)
        expected = estimator.coupling.exact_marginals
        for moment in (estimator.variance, estimator.relative_variance, estimator.mse):
            assert np.all(np.isinf(moment(x, y, num_features=6)) == expected)


@pytest.mark.parametrize("coupling", [*COUPLINGS, *OTHER_COUPLINGS], ids=repr)
def test_couplings_draw_by_every_seed_of_spec_7(coupling):
    (rows,) = coupling.nearest_num_rows(8, 3)
    expected = coupling.sample(rows, 3, rng=np.random.default_rng(5), batch_shape=(2,))
    for rng in (5, np.int64(5), np.random.SeedSequence(5), np.random.PCG64(5)):
        np.testing.assert_array_equal(coupling.sample(rows, 3, rng=rng, batch_shape=(2,)), expected)
    assert not np.array_equal(coupling.sample(rows, 3, batch_shape=(20,)), coupling.sample(rows, 3, batch_shape=(20,)))
    with pytest.raises((TypeError, ValueError), match="rng must be None, a non-negative int"):
        coupling.sample(rows, 3, rng="seed")


def test_scales_draw_by_every_seed_of_spec_7():
    for kernel in (
        rf.MaternKernel(), rf.RationalQuadraticKernel(), rf.ExponentialKernel(), rf.LaplacianKernel(),
        rf.CauchyKernel(), rf.ExponentialPowerKernel(),
    ):  # fmt: skip
        expected = kernel.sample_scales((4, 1), np.random.default_rng(2))
        for rng in (2, np.random.SeedSequence(2)):
            np.testing.assert_array_equal(kernel.sample_scales((4, 1), rng), expected)


class Doubled(rf.PositiveFeatures):
    """Positive features of 2x in place of x: the inherited form and gradient are of others."""

    def query_features(self, arrays, x):
        return super().query_features(arrays, 2 * x)


class Shrunken(rf.CenteredFeatures):
    """Centered features whose base sees x/2: the inherited form and gradient are of others."""

    def move(self, arrays, x, *, keys):
        moved, log_factor = super().move(arrays, x, keys=keys)
        return moved / 2, log_factor


SHIFTS = {"query_shift": np.full(DIM, 0.2), "key_shift": np.full(DIM, -0.1)}
CHANGED = {
    "features": Doubled(),
    "move": Shrunken(**SHIFTS),
    "features of the base": rf.CenteredFeatures(base=Doubled(), **SHIFTS),
}


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("name", CHANGED)
def test_changed_features_are_those_of_attention(rng, name, is_causal):
    """No inherited form is believed: the fast executor leaves the call to the features themselves."""
    query, key, value = rng.standard_normal((3, 200, DIM)) / 2
    phi = CHANGED[name].draw(DIM, 32, rng=0)
    unit = DIM**-0.25
    weights = phi.queries(unit * query).dot(phi.keys(unit * key))
    weights = np.tril(weights) if is_causal else weights
    expected = weights @ value / weights.sum(-1, keepdims=True)
    out = rf.linear_attention(query, key, value, phi, is_causal=is_causal)
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CHANGED)
def test_changed_features_have_no_inherited_gradient(rng, name):
    x = rng.standard_normal((5, DIM))
    with pytest.raises(ValueError, match="has no analytic gradient of its own features"):
        rf.linear_attention_vjp(x, x, x, CHANGED[name].draw(DIM, 8, rng=0), x)


def test_arguments_of_a_draw_are_given_by_name():
    """An estimator may have them in any order."""

    class Reordered(rf.PositiveFeatures):
        def draw_arrays(self, num_rows, dim, rng, batch_shape):
            return super().draw_arrays(dim, num_rows, rng, batch_shape)

    assert Reordered().draw(DIM, 16, rng=0).arrays["rows"].shape == (16, DIM)


@dataclass(frozen=True)
class Misshapen(rf.Independent):
    """Rows of another shape than was asked for."""

    mistake: str = "one row less"

    def sample(self, num_rows, dim, *, rng=None, batch_shape=()):
        rows = super().sample(num_rows, dim, rng=rng, batch_shape=batch_shape)
        match self.mistake:
            case "one row less":
                return rows[..., 1:, :]
            case "columns":
                return np.swapaxes(rows, -1, -2)
            case "no batch":
                return rows[0] if batch_shape else rows
        return np.concatenate([rows, rows], axis=-2)


BY_CLASS = {type(estimator): estimator for estimator in [*ESTIMATORS, *OTHERS, *OPEN]}
del BY_CLASS[rf.RegularizedSoftmaxFeatures]  # which asks for rows of constant norms


@pytest.mark.parametrize("estimator", [e for e in BY_CLASS.values() if e.has_coupling], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("mistake", ["one row less", "columns", "no batch", "twice"])
def test_couplings_must_draw_what_was_asked_for(estimator, mistake):
    """One error, before features of the wrong number are made, or rows are broadcast over a batch."""
    drawn = estimator.with_coupling(Misshapen(mistake=mistake))
    width = drawn.nearest_num_features(24, DIM)[0]
    with pytest.raises(ValueError, match=r"sample of Misshapen.* must have the shape \(\*batch_shape, num_rows, dim\)"):
        drawn.draw(DIM, width, rng=0, batch_shape=(2, *drawn.batch_shape))
