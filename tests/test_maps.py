"""Feature maps: formulas, one seed on every library, batches of maps, moving, redrawing, randomness, errors."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import asarray, compiled, eps_of, library, same_bits, shape_of, to_numpy
from tests.cases import ATTENTION, COUPLINGS, ESTIMATORS, FEATURES, KERNELS, widths
from tests.reference import FORMULAS, naive_features


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_formula(estimator, rng):
    """Every feature is its formula, number by number, for m < d, m = d, m = d + 1, m = 2d rows and for one."""
    assert type(estimator) in FORMULAS
    x, eps = rng.standard_normal((3, 4)), eps_of("float64")
    for width in widths(estimator, 4):
        phi = estimator.draw(4, width, rng=0)
        naive = {side: naive_features(phi, x, side=side) for side in ("queries", "keys")}
        for side, expected in naive.items():
            features = getattr(phi, side)(x)
            assert features.num_features == phi.num_features == width
            bound = expected.per_eps(4) * eps * np.exp(expected.size)
            assert np.max(bound / np.exp(expected.size)) < 1e-12
            assert np.all(np.abs(features.to_array() - expected.sign * np.exp(expected.log)) <= bound)
        # The estimate sums up `width` products of this size.
        q, k = (expected.sign * np.exp(expected.log) for expected in naive.values())
        size = np.exp(naive["queries"].size) @ np.exp(naive["keys"].size).T
        error = sum(np.max(e.per_eps(4)) + 4 * np.max(np.abs(e.size)) for e in naive.values()) + width + 8
        assert np.all(np.abs(q @ k.T - phi.estimate(x, x)) <= error * eps * size)
        pairs = phi.estimate_pairwise(x, x)
        assert np.all(np.abs(np.sum(q * k, axis=-1) - pairs) <= error * eps * np.diagonal(size))
        if estimator.symmetric:
            assert same_bits(phi(x), phi.queries(x).to_array())
            assert same_bits(phi.keys(x).to_array(), phi.queries(x).to_array())
        else:
            assert not same_bits(phi.keys(x).to_array(), phi.queries(x).to_array())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_seed_same_features(xp, dtype):
    """For one seed, features agree with NumPy's to 4 units in the last place of the terms in their exponents.

    The terms of an exponent, w·x and |x|²/2, are added up in a different order by each library; a unit in the last
    place is that of the largest of these terms and 1. Values are compared where they are of order one: cosines, and
    exponentials after their scale is taken out. A coupling only draws the rows, in NumPy: JAX is given one.
    """
    host = (np.random.default_rng(0).standard_normal((6, 16)) / 2).astype(dtype)
    x = asarray(xp, host, dtype)
    for estimator in (e for e in ESTIMATORS if library(xp) != "jax" or e.coupling == rf.Orthogonal()):
        here, there = estimator.draw(16, 32, rng=0, like=host), estimator.draw(16, 32, rng=0, like=x)
        for name, array in here.arrays.items():
            assert same_bits(there.arrays[name], array), name
        expected, actual = here.queries(host), there.queries(x)
        unit_in_last_place = eps_of(dtype) * size_of_terms(here, host)
        for a, b in ((actual.values, expected.values), (actual.log_scale, expected.log_scale)):
            off = np.abs(to_numpy(a) - to_numpy(b)) / unit_in_last_place
            assert np.max(off) <= 4, f"{estimator!r}: {np.max(off):.1f} units"


def plain(phi):
    """x -> φ(x), of queries where those of keys differ."""
    return lambda x: phi.queries(x).to_array()


def size_of_terms(phi, x):
    """The largest of 1, |w·x| and |x|² over the terms in each exponent, (n, 1)."""
    unit = np.abs(phi.estimator.kernel.unit(x.astype(np.float64)))
    dots = unit @ np.abs(to_numpy(phi.arrays["rows"])).T
    return np.maximum(np.maximum(dots.max(-1), np.sum(unit**2, -1)), 1.0)[:, None]


# batches of maps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_one_map_per_head(xp, rng, estimator):
    x = rng.standard_normal((2, 3, 4, 5))
    phi = estimator.draw(5, 8, rng=0, like=asarray(xp, x), batch_shape=(3,))
    assert phi.batch_shape == (3,)
    together = to_numpy(compiled(xp, lambda x: phi.queries(x).to_array())(asarray(xp, x)))
    assert together.shape == (2, 3, 4, 8)
    for head in range(3):
        alone = naive_features(phi, x[1, head], index=(head,))
        np.testing.assert_allclose(together[1, head], alone.sign * np.exp(alone.log), rtol=1e-12, atol=1e-12)
    rows = to_numpy(phi.arrays["rows"])
    assert not np.any(rows[0] == rows[1])
    assert shape_of(xp, plain(phi), asarray(xp, x[0, 0])) == (3, 4, 8)
    assert shape_of(xp, phi.estimate, asarray(xp, x[:, :1]), asarray(xp, x[0])) == (2, 3, 4, 4)


def test_batches_of_batches():
    phi = rf.TrigonometricFeatures(variant="phase").draw(5, 8, rng=0, batch_shape=(2, 3))
    assert phi.batch_shape == (2, 3)
    assert phi.arrays["phases"].shape == (2, 3, 1, 8)
    assert phi(np.ones((3, 4, 5))).shape == (2, 3, 4, 8)
    assert len(np.unique(phi.arrays["phases"])) == 48
    assert rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=()).batch_shape == ()


# moving and redrawing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_moves_to_any_library_and_dtype(xp, dtype):
    like = asarray(xp, np.ones(1), dtype)
    phi = rf.TrigonometricFeatures(variant="phase").draw(5, 8, rng=3, batch_shape=(2,))
    moved, drawn = (
        phi.to(like),
        rf.TrigonometricFeatures(variant="phase").draw(5, 8, rng=3, like=like, batch_shape=(2,)),
    )
    for name in ("rows", "phases"):
        assert type(moved.arrays[name]) is type(like)
        assert moved.arrays[name].dtype == drawn.arrays[name].dtype
        assert same_bits(moved.arrays[name], drawn.arrays[name])
    assert (moved.estimator, moved.dim, moved.num_features) == (phi.estimator, 5, 8)
    back = moved.to(np.empty(0))
    assert type(back.arrays["rows"]) is np.ndarray
    assert same_bits(back.arrays["rows"], moved.arrays["rows"])


def test_moving_to_integers_or_lists_means_the_default_float():
    """Rows cast to the dtype of an integer array would be small integers, and mostly zero."""
    phi = rf.PositiveFeatures().draw(3, 4, rng=0)
    for like in (np.arange(3), [1, 2], 0):
        assert same_bits(phi.to(like).arrays["rows"], phi.arrays["rows"])


@pytest.mark.parametrize("like", ["torch", np.float32, 1j, object()], ids=lambda like: type(like).__name__)
def test_like_is_an_array_not_the_name_of_a_library(like, tmp_path):
    phi = rf.PositiveFeatures().draw(3, 4, rng=0)
    rf.save(tmp_path / "phi", phi)
    rf.save(tmp_path / "law", phi.estimator)
    message = rf"^like must be an array, got {type(like).__name__}\.$"
    with pytest.raises(TypeError, match=message):
        phi.to(like)
    with pytest.raises(TypeError, match=message):
        phi.estimator.draw(3, 4, like=like)
    for name in ("phi", "law"):
        with pytest.raises(TypeError, match=message):
            rf.load(tmp_path / name, like=like)


def test_redraw_is_a_new_map(xp):
    x = asarray(xp, np.ones((2, 3)), "float32")
    phi = rf.PositiveFeatures().draw(3, 4, rng=0, like=x, batch_shape=(2,))
    before = to_numpy(phi.arrays["rows"]).copy()
    new = phi.redraw(1)
    assert new is not phi
    assert same_bits(phi.arrays["rows"], before)
    assert not np.any(to_numpy(new.arrays["rows"]) == before)
    assert (new.estimator, new.dim, new.num_features, new.batch_shape) == (phi.estimator, 3, 4, (2,))
    assert new.arrays["rows"].dtype == x.dtype
    assert type(new.arrays["rows"]) is type(x)
    assert same_bits(phi.redraw(0).arrays["rows"], before)
    assert not same_bits(phi.redraw().arrays["rows"], phi.redraw().arrays["rows"])


def test_is_immutable():
    phi = rf.PositiveFeatures().draw(3, 4, rng=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        phi.dim = 5
    with pytest.raises(TypeError, match="does not support item assignment"):
        phi.arrays["rows"] = np.zeros((4, 3))


def test_repr_is_the_configuration():
    phi = rf.PositiveFeatures(rf.SoftmaxKernel(2.0), "simplex").draw(3, 4, rng=0, batch_shape=(5,))
    assert repr(phi) == (
        "FeatureMap(PositiveFeatures(kernel=SoftmaxKernel(scale=2.0), coupling=Simplex()), dim=3, num_features=4, "
        "batch_shape=(5,))"
    )
    for estimator in ESTIMATORS:
        assert eval(repr(estimator), vars(rf)) == estimator
        assert hash(estimator) == hash(dataclasses.replace(estimator))
        assert repr(estimator.draw(4, 8, rng=0)) == f"FeatureMap({estimator!r}, dim=4, num_features=8)"


# randomness (SPEC 7) ---------------------------------------------------------------------------------------------


def rows_of(rng):
    return rf.PositiveFeatures().draw(3, 4, rng=rng).arrays["rows"]


def test_forms_of_rng():
    expected = rows_of(5)
    assert same_bits(rows_of(5), expected)
    assert same_bits(rows_of(np.int64(5)), expected)
    assert same_bits(rows_of(np.random.SeedSequence(5)), expected)
    assert same_bits(rows_of(np.random.default_rng(5)), expected)
    assert same_bits(rows_of(np.random.PCG64(5)), expected)
    assert not np.any(rows_of(6) == expected)
    assert not np.any(rows_of(None) == rows_of(None))
    generator = np.random.default_rng(5)
    assert same_bits(rows_of(generator), expected)
    assert not np.any(rows_of(generator) == expected)  # it moves on


def test_the_global_generator_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = rows_of(1)
    np.random.seed(1)  # noqa: NPY002
    assert same_bits(rows_of(1), first)
    np.random.seed(0)  # noqa: NPY002
    rows_of(None)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("rng", [1.5, "0", 1j, [0.5]], ids=repr)
def test_wrong_rng(rng):
    with pytest.raises(TypeError, match="rng must be None, a non-negative int, or a NumPy SeedSequence"):
        rows_of(rng)


def test_negative_seed():
    with pytest.raises(ValueError, match=r"rng must be None, a non-negative int, .* got -1"):
        rows_of(-1)


def test_generators_of_other_libraries(torch, jax):
    for rng in (torch.Generator(), jax.random.key(0), jax.random.PRNGKey(0)):
        with pytest.raises(TypeError, match="drawn by NumPy on the host, so the seeds of other libraries do not apply"):
            rows_of(rng)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_seeds_matter_for_everything_drawn(estimator):
    one, again, other = (estimator.draw(3, 12, rng=seed).arrays for seed in (0, 0, 1))
    for name, array in one.items():
        assert same_bits(array, again[name])
    assert not np.any(one["rows"] == other["rows"])


# widths ----------------------------------------------------------------------------------------------------------

IMPOSSIBLE = [
    (rf.HyperbolicFeatures(), 7, "6, 8"),
    (rf.HyperbolicFeatures(), 1, "2"),
    (rf.TrigonometricFeatures(), 255, "254, 256"),
    (rf.PositiveFeatures(coupling="antithetic"), 9, "8, 10"),
    (rf.PositiveFeatures(coupling="antithetic"), 1, "2"),
    (rf.PositiveFeatures(coupling=rf.Antithetic(rf.Antithetic())), 6, "4, 8"),
    (rf.TrigonometricFeatures(coupling="antithetic"), 6, "4, 8"),
    (rf.TrigonometricFeatures(coupling="antithetic"), 5, "4, 8"),
    (rf.TrigonometricFeatures(variant="phase", coupling="antithetic"), 5, "4, 6"),
]


@pytest.mark.parametrize(("estimator", "width", "nearest"), IMPOSSIBLE, ids=str)
def test_impossible_widths_name_the_nearest(estimator, width, nearest):
    message = f"cannot have {width} features; nearest: {nearest}\\."
    for use in (
        lambda: estimator.draw(3, width, rng=0),
        lambda: estimator.variance(np.zeros(3), np.zeros(3), num_features=width),
    ):
        with pytest.raises(ValueError, match=message) as info:
            use()
        assert repr(estimator) in str(info.value)
    for possible in map(int, nearest.split(", ")):
        assert estimator.draw(3, possible, rng=0)(np.ones((1, 3))).shape == (1, possible)


@pytest.mark.parametrize("name", ["dim", "num_features", "batch_shape"])
def test_counts_are_positive_integers(name):
    def draw(value):
        options = {"dim": 3, "num_features": 4, name: (value,) if name == "batch_shape" else value}
        return rf.PositiveFeatures().draw(rng=0, **options)

    for value in (0, -1, True):
        with pytest.raises(ValueError, match=f"{name} must be a positive integer, got {value}"):
            draw(value)
    for value in (2.0, "3", None):
        with pytest.raises(TypeError, match=f"{name} must be a positive integer, got {value!r}"):
            draw(value)
    draw(np.int32(2))


# shapes and errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_shapes(xp, estimator):
    phi = estimator.draw(3, 4, rng=0, like=asarray(xp, np.zeros(1)))
    for lead, n, k in (((), 1, 2), ((), 0, 2), ((2, 5), 2, 0), ((2, 5), 0, 0)):
        x, y = asarray(xp, np.ones((*lead, n, 3))), asarray(xp, np.ones((*lead, k, 3)))
        assert shape_of(xp, plain(phi), x) == (*lead, n, 4)
        assert shape_of(xp, phi.estimate, x, y) == (*lead, n, k)
        assert shape_of(xp, phi.estimate_pairwise, x, x) == (*lead, n)


@pytest.mark.parametrize("method", ["__call__", "queries", "keys", "estimate", "estimate_pairwise"])
def test_wrong_shapes(method):
    phi = rf.PositiveFeatures().draw(4, 8, rng=0, batch_shape=(2,))

    def use(x):
        function = getattr(phi, method)
        return function(x, np.ones((2, 3, 4))) if method.startswith("estimate") else function(x)

    name = "y" if method == "keys" else "x"
    with pytest.raises(ValueError, match=rf"{name} has dimension 3, but the features were drawn for 4; .*draw\(dim=3"):
        use(np.ones((2, 3, 3)))
    with pytest.raises(ValueError, match=rf"{name} must have shape \(\.\.\., n, 4\), got \(4,\)"):
        use(np.ones(4))
    with pytest.raises(ValueError, match=rf"{name} must have shape \(\.\.\., n, 4\), got \(\)"):
        use(1.0)
    with pytest.raises(ValueError, match=rf"{name} has leading dimensions \(3,\), .* batch_shape \(2,\)"):
        use(np.ones((3, 3, 4)))


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@pytest.mark.parametrize("make", FEATURES, ids=lambda make: repr(make()))
def test_nan_stays_in_its_row(xp, rng, kernel, make):
    x = rng.standard_normal((4, 3))
    phi = make(kernel).draw(3, 8, rng=0, like=asarray(xp, x))
    clean = to_numpy(plain(phi)(asarray(xp, x)))
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = x.copy()
        spoilt[2, 1] = bad
        with np.errstate(invalid="ignore"):
            features = to_numpy(plain(phi)(asarray(xp, spoilt)))
            gram = to_numpy(phi.estimate(asarray(xp, x), asarray(xp, spoilt)))
        np.testing.assert_allclose(features[[0, 1, 3]], clean[[0, 1, 3]], rtol=1e-12)
        assert np.all(np.isnan(features[2])) if np.isnan(bad) else not np.all(np.isfinite(features[2]))
        assert np.all(np.isfinite(gram[:, [0, 1, 3]]))
        assert not np.any(np.isfinite(gram[:, 2]))


@dataclasses.dataclass(frozen=True)
class OneSided(rf.PositiveFeatures):
    """Positive features whose keys are three times as large: an asymmetric estimator of three times the kernel."""

    symmetric = False

    def key_features(self, arrays, y):
        return self.query_features(arrays, y).scaled(np.log(3.0))


def test_asymmetric_features(rng):
    x, y = rng.standard_normal((2, 4, 3))
    phi, plain = OneSided().draw(3, 8, rng=0), rf.PositiveFeatures().draw(3, 8, rng=0)
    with pytest.raises(TypeError, match="OneSided has different query and key features; use queries, keys"):
        phi(x)
    assert same_bits(phi.queries(x).log_scale, plain.queries(x).log_scale)
    np.testing.assert_allclose(phi.estimate(x, y), 3 * plain.estimate(x, y), rtol=1e-13)
    np.testing.assert_allclose(phi.estimate_pairwise(x, y), 3 * plain.estimate_pairwise(x, y), rtol=1e-13)
    # a factor shared by all keys cancels
    np.testing.assert_allclose(rf.linear_attention(x, y, y, phi), rf.linear_attention(x, y, y, plain), rtol=1e-13)


def test_compiles(xp, rng):
    """A map is a pure function of static shape: tracing it under JAX gives the features that it gives eagerly."""
    x = asarray(xp, rng.standard_normal((3, 4)))
    for estimator in ATTENTION:
        phi = estimator.draw(4, 8, rng=0, like=x)
        np.testing.assert_allclose(
            to_numpy(compiled(xp, plain(phi))(x)), to_numpy(plain(phi)(x)), rtol=1e-13, atol=1e-15
        )


def test_couplings_by_name():
    for coupling in COUPLINGS:
        assert rf.PositiveFeatures(coupling=coupling).coupling is coupling
    assert rf.PositiveFeatures().coupling == rf.PositiveFeatures(coupling="orthogonal").coupling
    with pytest.raises(ValueError, match=r"unknown coupling 'ortho'; expected one of .*'orthogonal'"):
        rf.PositiveFeatures(coupling="ortho")
    with pytest.raises(TypeError, match="coupling must be a Coupling or its name, got SimpleNamespace"):
        rf.PositiveFeatures(coupling=SimpleNamespace())
    with pytest.raises(TypeError, match="kernel must be a SoftmaxFamily"):
        rf.PositiveFeatures("softmax")
