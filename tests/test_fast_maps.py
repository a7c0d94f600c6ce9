"""Plain features written block by block against the generic way; where that is taken, and what it never does."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

import randfeat as rf
from randfeat import maps
from randfeat._numpy import blockwise, elementary
from tests.arrays import eps_of, same_bits, to_numpy

DIM = 5
SHIFTED = {"means": np.eye(3, DIM) / 2, "variances": [0.6, 1.0, 1.5]}
QUADRATURE = rf.GaussHermite(nodes=3)  # whose weights differ; with two nodes on each axis they would all be equal

CASES = {
    "positive": rf.PositiveFeatures(),
    "positive, Gaussian": rf.PositiveFeatures(rf.GaussianKernel(1.3)),
    "positive, by quadrature": rf.PositiveFeatures(coupling=QUADRATURE),
    "hyperbolic": rf.HyperbolicFeatures(rf.SoftmaxKernel(scale=0.7)),
    "optimal positive": rf.OptimalPositiveFeatures(exponent=-0.05),
    "antithetic": rf.OptimalPositiveFeatures(rf.GaussianKernel(1.3), exponent=-0.05, antithetic=True),
    "hyperbolic, by quadrature": rf.HyperbolicFeatures(coupling=QUADRATURE),
    "antithetic, by quadrature": rf.OptimalPositiveFeatures(coupling=QUADRATURE, exponent=-0.05, antithetic=True),
    "importance-sampled": rf.ImportanceSampledFeatures(**SHIFTED),
    "regularized": rf.RegularizedSoftmaxFeatures(),
    "pairs": rf.TrigonometricFeatures(),
    "pairs, Gaussian": rf.TrigonometricFeatures(rf.GaussianKernel(1.3)),
    "pairs, normalized": rf.TrigonometricFeatures(rf.NormalizedSoftmaxKernel(1.5)),
    "pairs, by quadrature": rf.TrigonometricFeatures(coupling=QUADRATURE),
    "phase": rf.TrigonometricFeatures(variant="phase"),
    "phase, by quadrature": rf.TrigonometricFeatures(rf.GaussianKernel(), QUADRATURE, "phase"),
    "spectral pairs": rf.SpectralFeatures(rf.MaternKernel(smoothness=2.5)),
    "spectral pairs, by quadrature": rf.SpectralFeatures(rf.MaternKernel(smoothness=2.5), QUADRATURE),
    "spectral phase": rf.SpectralFeatures(rf.LaplacianKernel(2.0), rf.Independent(), "phase"),
}
"""Every kind of symmetric exponentials and of waves."""

WAVES = [name for name in CASES if "pairs" in name or "phase" in name]
EVERY = pytest.mark.parametrize("name", CASES)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])

SHAPES = [(1, DIM), (5, DIM), (6, DIM), (23, DIM), (2, 3, 7, DIM)]
BATCHES = [((2,), (7, DIM)), ((2,), (1, 7, DIM)), ((2,), (3, 2, 6, DIM)), ((2, 1), (3, 6, DIM))]


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    """Features of any size, from SHORTEST rows on, go block by block."""
    monkeypatch.setattr(maps, "LEAST", 1)


@pytest.fixture
def small_blocks(monkeypatch):
    """Borders of blocks of rows and of features within small arrays, on all threads."""
    for module, name, size in (
        (maps, "SHORTEST", 1), (blockwise, "BLOCK", 5), (blockwise, "PANEL", 120), (blockwise, "FEW", 0)
    ):  # fmt: skip
        monkeypatch.setattr(module, name, size)


@pytest.fixture
def taken(monkeypatch):
    """One entry for each call that went block by block."""
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return blockwise.blockwise_features(*arguments)

    monkeypatch.setattr(maps, "blockwise_features", counted)
    return calls


def draw(name, dtype, batch_shape=()):
    width = CASES[name].nearest_num_features(32, DIM)[0]
    return CASES[name].draw(DIM, width, rng=0, like=np.zeros(1, dtype), batch_shape=batch_shape)


def generic(phi, x):
    """The features as the generic way gives them."""
    return phi.queries(x).to_array().astype(x.dtype)


def bound(phi, x, eps):
    """How far from one another two right results may be: rounding of all that is added up inside of exp, cos or sin.

    With s the sum of the sizes of the terms, each exponent or angle is off by (d + 12) eps s, and each function by 8
    eps. A factor e^r of waves is such an exponential, too.
    """
    arrays = {key: to_numpy(array) for key, array in phi.arrays.items()}
    exact = rf.FeatureMap(phi.estimator, phi.dim, phi.num_features, arrays)
    x = x.astype(np.float64)
    unit = phi.estimator.kernel.unit(x)
    form = exact.exponential_form(keys=False) or exact.fourier_form()
    offsets = getattr(form, "log_weights", getattr(form, "phases", None))
    terms = np.abs(unit) @ np.swapaxes(np.abs(form.rows), -1, -2) + (0 if offsets is None else np.abs(offsets))
    common = np.abs(form.per_row(unit)) + np.sum(unit * unit, axis=-1, keepdims=True)
    rounding = eps * ((DIM + 12) * (terms + common) + 8)
    if isinstance(form, rf.features.ExponentialForm):
        return 2 * np.abs(exact.queries(x).to_array()) * np.expm1(rounding)
    most = np.exp(form.per_row(unit)) * form.amplitudes * np.exp(eps * (DIM + 12) * common)
    allowed = 2 * np.minimum(most * np.expm1(rounding), most)  # waves are bounded, whatever is left of their angle
    return allowed if form.phases is not None else np.concatenate([allowed] * 2, axis=-1)


def agree(phi, x, dtype):
    """Whether both ways give the same, by a bound that for most features is below 1000 eps of the largest one."""
    allowed = bound(phi, x, eps_of(dtype))
    expected, actual = generic(phi, x), phi(x)
    assert (actual.shape, actual.dtype, type(actual)) == (expected.shape, expected.dtype, np.ndarray)
    assert actual.flags.c_contiguous
    assert np.median(allowed) <= 1000 * eps_of(dtype) * np.max(np.abs(expected))
    return bool(np.all(np.abs(actual - expected) <= allowed))


# equal ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@DTYPES
@EVERY
def test_equals_the_generic_way(taken, rng, name, dtype):
    cases = [((), shape) for shape in SHAPES] + BATCHES
    for batch_shape, shape in cases:
        x = (rng.standard_normal(shape) / 2).astype(dtype)
        assert agree(draw(name, dtype, batch_shape), x, dtype), (batch_shape, shape)
    assert len(taken) == len(cases)


@EVERY
def test_equals_the_generic_way_at_full_size(taken, rng, name):
    x = rng.standard_normal((2 * blockwise.BLOCK + 1, DIM)).astype(np.float32) / 2
    assert agree(draw(name, "float32"), x, "float32")
    assert len(taken) == 1


def wrong_unit(monkeypatch):
    """Powers of e where those of 2 are meant, and whole angles where half ones are."""
    power, unit = elementary.fastest_power()
    monkeypatch.setattr(blockwise, "fastest_power", lambda: (power, unit * 1.001))
    monkeypatch.setattr(blockwise, "angle_unit", lambda dtype: 1.001 * elementary.angle_unit(dtype))


def missing_column(monkeypatch):
    """The last feature of a panel is that of the next one."""
    panels = blockwise.panels
    monkeypatch.setattr(blockwise, "panels", lambda *a: [slice(0, 2), *panels(*a)[1:]])
    monkeypatch.setattr(blockwise.np, "empty", np.zeros)


def wrong_block(monkeypatch):
    """The first row of a block is that of another one."""
    task = blockwise.block_task

    def shifted(source, target, *rest):
        task(np.concatenate([source[-1:], source[1:]]), target, *rest)

    monkeypatch.setattr(blockwise, "block_task", shifted)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("mistake", [wrong_unit, missing_column, wrong_block])
@pytest.mark.parametrize("name", ["positive", "pairs", "phase"])
def test_mistakes_are_seen(monkeypatch, rng, name, mistake):
    x = rng.standard_normal((12, DIM)) / 2
    phi = draw(name, "float64")
    assert agree(phi, x, "float64")
    with monkeypatch.context() as patch:
        mistake(patch)
        assert not agree(phi, x, "float64")


@pytest.mark.parametrize("name", WAVES)
def test_waves_are_the_features(xp, rng, name):
    """The form that an estimator states gives its features, on every library."""
    x = rng.standard_normal((7, DIM))
    phi = CASES[name].draw(DIM, draw(name, "float64").num_features, rng=0, like=xp.asarray(x), batch_shape=(2,))
    stated = phi.fourier_form().features(phi.estimator.kernel.unit(xp.asarray(x)))
    assert stated.values.shape == (2, 7, phi.num_features)
    expected = to_numpy(phi.queries(xp.asarray(x)).to_array())
    np.testing.assert_allclose(to_numpy(stated.to_array()), expected, rtol=1e-12, atol=1e-13 * np.max(expected))


def test_waves_are_right_for_every_angle(monkeypatch, rng):
    """Tangents of half angles against NumPy's sine and cosine, from 1e-300 to 1e308 and beside multiples of π/2."""
    multiples = np.arange(-2000, 2001) * np.pi / 2
    angles = np.concatenate([
        rng.standard_normal(4000) * 10.0 ** rng.uniform(-300, 307.5, 4000),
        rng.standard_normal(4000) * 10.0 ** rng.uniform(-3, 16, 4000),
        multiples, np.nextafter(multiples, np.inf), 2.0**30 * multiples, [0.0, -0.0, 1.7e308],
    ])[None]  # fmt: skip
    amplitudes = rng.uniform(0.5, 2.0, angles.shape[1])

    def waves(angles, unit):
        given = angles * unit
        cosines, sines, spare = np.empty((3, *given.shape))
        elementary.fill_waves(given, amplitudes, cosines, sines, spare)
        return cosines, sines

    fast = waves(angles, elementary.angle_unit(np.float64))
    for wave, function in zip(fast, (np.cos, np.sin), strict=True):
        assert np.all(np.abs(wave - amplitudes * function(angles)) <= 4 * eps_of("float64") * amplitudes)
    monkeypatch.setattr(elementary, "has_vector_functions", lambda: False)
    assert elementary.angle_unit(np.float64) == 1
    for wave, function in zip(waves(angles, 1.0), (np.cos, np.sin), strict=True):
        assert same_bits(wave, amplitudes * function(angles))
    with np.errstate(invalid="ignore"):
        assert np.all(np.isnan(waves(np.full_like(angles, np.inf), 1.0)))


@pytest.mark.usefixtures("small_blocks")
@DTYPES
@EVERY
def test_without_vector_functions(monkeypatch, rng, name, dtype):
    monkeypatch.setattr(elementary, "has_vector_functions", lambda: False)
    assert agree(draw(name, dtype), (rng.standard_normal((12, DIM)) / 2).astype(dtype), dtype)


# the inputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@EVERY
def test_layout_of_inputs_does_not_matter(rng, name):
    phi, x = draw(name, "float64"), rng.standard_normal((3, 8, DIM))
    before, expected = x.copy(), phi(x)
    wide = np.zeros((8, 3, 2 * DIM))
    wide[..., ::2] = np.swapaxes(x, 0, 1)
    x.flags.writeable = False
    views = {
        "read-only": x,
        "every other coordinate, heads behind": np.swapaxes(wide, 0, 1)[..., ::2],
        "Fortran order": np.asfortranarray(x),
        "reversed": x[:, ::-1].copy()[:, ::-1],
    }
    for layout, view in views.items():
        np.testing.assert_allclose(phi(view), expected, rtol=1e-12, atol=1e-14, err_msg=layout)
    assert same_bits(x, before)
    assert same_bits(phi(x.tolist()), expected)


@pytest.mark.usefixtures("small_blocks")
@DTYPES
@EVERY
def test_inputs_that_are_not_finite_stay_in_their_row(rng, name, dtype):
    """NaN where the generic way has it, and the other rows as if nothing were."""
    phi, x = draw(name, dtype), rng.standard_normal((13, DIM)).astype(dtype)
    clean = phi(x)
    x[3, 1], x[6, 0], x[8, 2], x[8, 3] = np.nan, np.inf, np.inf, -np.inf
    with np.errstate(all="ignore"):
        actual, expected = phi(x), generic(phi, x)
    others = np.isin(np.arange(13), (3, 6, 8), invert=True)
    assert same_bits(actual[others], clean[others])
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    finite = np.isfinite(expected)
    assert np.array_equal(actual[~finite], expected[~finite], equal_nan=True)


@pytest.mark.usefixtures("small_blocks")
@DTYPES
@EVERY
def test_huge_and_tiny_inputs(rng, name, dtype):
    """Where factors overflow or underflow, both ways do; angles beyond 1/eps are noise, of the right size."""
    phi, eps = draw(name, dtype), eps_of(dtype)
    for length in (1e-30, 1e-3, 3.0, 10.0, 1e3, 1e9, 1e15):
        x = (rng.standard_normal((12, DIM)) * length).astype(dtype)
        with np.errstate(all="ignore"):
            actual, expected, allowed = phi(x), generic(phi, x), bound(phi, x, eps)
            off = np.abs(actual.astype(np.float64) - expected)
            smallest = 4 * np.finfo(dtype).smallest_subnormal.astype(np.float64)
            fine = (off <= allowed + smallest) | (actual == expected)
        assert np.all(fine | np.isnan(expected)), length
        assert np.array_equal(np.isnan(actual), np.isnan(expected)), length


@pytest.mark.usefixtures("small_blocks")
@EVERY
def test_no_rows(name):
    phi = draw(name, "float64")
    for shape in ((0, DIM), (3, 0, DIM), (0, 4, DIM)):
        assert phi(np.zeros(shape)).shape == (*shape[:-1], phi.num_features)
    assert draw(name, "float64", (2,))(np.zeros((0, DIM))).shape == (2, 0, phi.num_features)
    with pytest.raises(ValueError, match="dimension 3, but the features were drawn for 5"):
        phi(np.zeros((400, 3)))
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., n, 5\)"):
        phi(np.zeros(DIM))
    with pytest.raises(ValueError, match="do not broadcast against the batch_shape"):
        draw(name, "float64", (2,))(np.zeros((3, 400, DIM)))


# threads and memory ---------------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("name", ["positive", "pairs, Gaussian", "spectral phase"])
def test_threads_change_no_bit(monkeypatch, rng, name, dtype):
    monkeypatch.setattr(blockwise, "FEW", 0)
    x = rng.standard_normal((3 * blockwise.BLOCK + 7, DIM)).astype(dtype)
    phi = draw(name, dtype)
    one = phi(x, num_threads=1)
    assert all(same_bits(phi(x, num_threads=num), one) for num in (2, 3, 8))
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", "2")
    assert same_bits(phi(x), one)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True])
def test_wrong_numbers_of_threads(bad):
    with pytest.raises((TypeError, ValueError), match="num_threads must be a positive integer, got"):
        draw("positive", "float64")(np.zeros((1, DIM)), num_threads=bad)


@pytest.mark.parametrize("name", ["positive", "pairs", "phase"])
def test_memory_is_the_output(name):
    """Beside it one block: 4 MiB of scratch for each thread, at the most."""
    x = np.zeros((2**14, DIM), np.float32)
    phi = CASES[name].draw(DIM, 512, rng=0, like=x)
    phi(x, num_threads=1)
    tracemalloc.start()
    try:
        size = phi(x, num_threads=1).nbytes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == 2**25
    assert peak <= size + 2**22


# out -----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@DTYPES
@EVERY
def test_features_are_written_into_out(rng, name, dtype):
    """To the bit as without it, for every layout of `out`, with one map or a batch of maps."""
    for batch_shape, shape in [((), (13, DIM)), ((), (2, 3, 7, DIM)), *BATCHES]:
        phi, x = draw(name, dtype, batch_shape), (rng.standard_normal(shape) / 2).astype(dtype)
        expected = phi(x)
        outs = {
            "contiguous": np.full_like(expected, np.nan),
            "columns of a wider array": np.full((*expected.shape[:-1], 2 * phi.num_features), np.nan, dtype)[..., ::2],
            "reversed": np.full_like(expected, np.nan)[..., ::-1, :],
            "Fortran order": np.full_like(expected, np.nan, order="F"),
        }
        for layout, out in outs.items():
            assert phi(x, out=out) is out
            assert same_bits(np.ascontiguousarray(out), expected), layout


@pytest.mark.parametrize("estimator", [CASES["pairs"], rf.PoissonFeatures()], ids=["few rows", "no form"])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_the_generic_way_writes_into_out_too(rng, estimator, dtype):
    phi, x = estimator.draw(DIM, 32, rng=0), rng.standard_normal((2, 7, DIM)).astype(dtype)
    out = np.empty((2, 7, 32), dtype)
    assert phi(x, out=out) is out
    assert same_bits(out, phi(x))


@pytest.mark.parametrize("rows", [8, 2 * maps.SHORTEST], ids=["few", "many"])
@pytest.mark.parametrize("gap", [0, 1, 16])
def test_out_may_share_memory_with_the_inputs(monkeypatch, rng, rows, gap):
    """Features of earlier blocks are written over inputs of later ones."""
    monkeypatch.setattr(blockwise, "BLOCK", 16)
    phi = draw("pairs", "float64")
    memory = rng.standard_normal(gap + rows * phi.num_features)
    x = memory[gap : gap + rows * DIM].reshape(rows, DIM)
    expected = phi(x.copy())
    out = memory[: rows * phi.num_features].reshape(rows, -1)
    assert np.shares_memory(x, out)
    assert same_bits(phi(x, out=out), expected)


def test_out_may_be_a_file(tmp_path, rng):
    phi, x = draw("positive", "float32"), rng.standard_normal((2 * maps.SHORTEST, DIM)).astype("float32")
    out = np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float32, (len(x), phi.num_features))
    assert phi(x, out=out) is out
    out.flush()
    assert same_bits(np.load(tmp_path / "features.npy"), phi(x))


def test_wrong_outs_are_named(xp, rng):
    phi, x = draw("positive", "float64"), rng.standard_normal((7, DIM))
    before = np.zeros((7, 32))
    for out in (np.zeros((7, 31)), np.zeros((1, 7, 32)), np.zeros((7, 32), np.float32)):
        found = f"got {out.dtype} of shape {out.shape}".replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=rf"out must be float64 of shape \(7, 32\), {found}"):
            phi(x, out=out)
    with pytest.raises(ValueError, match=r"out must be float64 of shape \(2, 7, 32\)"):
        draw("positive", "float64", (2,))(x, out=before)
    with pytest.raises(ValueError, match="dimension 3, but"):
        phi(x[:, :3], out=before)
    before.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        phi(x, out=before)
    assert not before.any()
    inputs = xp.asarray(x)
    if not isinstance(inputs, np.ndarray):
        with pytest.raises(TypeError, match=r"out is for NumPy arrays only, got x of .*; write out\[...\] = phi\(x\)"):
            phi.to(inputs)(inputs, out=xp.zeros((7, 32), dtype=inputs.dtype))


@pytest.mark.parametrize("name", ["positive", "pairs", "phase"])
def test_out_takes_no_new_memory(name):
    """One block beside it, 4 MiB of scratch at the most."""
    x = np.zeros((2**14, DIM), np.float32)
    phi = CASES[name].draw(DIM, 512, rng=0, like=x)
    out = phi(x, num_threads=1)
    tracemalloc.start()
    try:
        phi(x, num_threads=1, out=out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2**22


# where it is taken ----------------------------------------------------------------------------------------------------


def test_other_inputs_go_the_generic_way(monkeypatch, taken, rng):
    phi, x = draw("positive", "float64"), rng.standard_normal((2 * maps.SHORTEST, DIM))
    assert phi(x[: maps.SHORTEST - 1]).shape == (maps.SHORTEST - 1, 32)
    assert phi(x.astype(np.float16)).dtype == np.float16
    assert rf.PoissonFeatures().draw(DIM, 8, rng=0)(x).shape == (2 * maps.SHORTEST, 8)
    assert draw("positive", "float64", (2,))(x[: maps.SHORTEST - 1]).ndim == 3
    with monkeypatch.context() as patch:
        patch.setattr(maps, "LEAST", blockwise.LEAST)
        assert phi(x).size < maps.LEAST
    assert not taken
    phi(x)
    assert len(taken) == 1


def test_dtype_is_that_of_the_input(taken, rng):
    x = rng.standard_normal((maps.SHORTEST, DIM))
    single, double = draw("pairs", "float32"), draw("pairs", "float64")
    assert double(x.astype(np.float32)).dtype == np.float32
    assert same_bits(double(x.astype(np.float32)), single(x.astype(np.float32)))
    assert single(x).dtype == np.float64
    assert double(np.ones((maps.SHORTEST, DIM), int)).dtype == np.float64
    assert len(taken) == 5


def test_changed_features_are_not_overlooked(taken, rng):
    """Who changes the features of an estimator, but not their form, gets the changed ones."""

    @dataclasses.dataclass(frozen=True)
    class Doubled(rf.TrigonometricFeatures):
        def query_features(self, arrays, x):
            features = super().query_features(arrays, x)
            return rf.Features(2 * features.values, features.log_scale)

    x = rng.standard_normal((maps.SHORTEST, DIM))
    plain, doubled = (cls().draw(DIM, 8, rng=0)(x) for cls in (rf.TrigonometricFeatures, Doubled))
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-12, atol=1e-14 * np.max(plain))
    assert len(taken) == 1


def test_asymmetric_maps_are_refused():
    with pytest.raises(TypeError, match="use queries, keys"):
        rf.CenteredFeatures(query_shift=np.ones(DIM)).draw(DIM, 8, rng=0)(np.zeros((400, DIM)))


@pytest.mark.usefixtures("small_blocks")
@DTYPES
def test_every_part_of_a_form_is_written(rng, dtype):
    """Rows, origins, weights, amplitudes, phases and factors, all of one's own: the writers against the formulas."""
    x = (rng.standard_normal((13, DIM)) / 2).astype(dtype)
    rows = rng.standard_normal((7, DIM)).astype(dtype)
    weights, origin = rng.standard_normal((1, 7)).astype(dtype), rng.standard_normal((1, DIM)).astype(dtype)

    def per_row(x):
        return np.sum(x[:, :2], axis=-1, keepdims=True)

    exponential = [
        rf.features.ExponentialForm(rows, weights, per_row, None, origin=moved, antithetic=antithetic).written_out()
        for moved in (None, origin)
        for antithetic in (False, True)
    ]
    waves = [rf.features.FourierForm(rows, np.abs(weights), per_row, None, phases) for phases in (None, 2 * weights)]
    for form in (*exponential, *waves):
        expected = form.features(x).to_array()
        width = expected.shape[-1]
        actual = blockwise.blockwise_features(x, [form], (), width, lambda x: x, None)
        assert np.max(np.abs(actual - expected)) <= 200 * eps_of(dtype) * np.max(np.abs(expected))
        twice = blockwise.blockwise_features(2 * x, [form], (), width, lambda x: x / 2, None)
        assert same_bits(twice, actual)
