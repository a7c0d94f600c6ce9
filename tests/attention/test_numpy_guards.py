"""Inputs on which a pass without shifts would be wrong: each condition of the fast NumPy passes is needed for some.

With no more rows than dimensions, inputs can give each feature any exponent, so extremes of several features at once,
of opposite signs, in single positions, are all in one table. The generic pass in float64 says what is right.
"""

import functools
from itertools import product

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import executors
from randfeat.attention.numpy import exponents
from randfeat.attention.numpy.executor import NumPyExecutor
from tests.arrays import eps_of

DIM, VALUES = 6, 3
MODES = pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
LENGTHS = {"small blocks": 23, "blocks as they are": 200}
MAPS = {
    "positive": (rf.PositiveFeatures(), 3),
    "hyperbolic": (rf.HyperbolicFeatures(), 6),
    "centered": (
        rf.CenteredFeatures(
            query_shift=np.array([1.0, 0.5, 0.0, 0.0, -2.0, 0.5]), key_shift=np.array([0.0, -1.0, 1.0, 0.0, 1.0, 0.3])
        ),
        3,
    ),
    "more rows than dimensions": (rf.PositiveFeatures(), 16),
}


@pytest.fixture(params=LENGTHS)
def length(request):
    """A number of positions, with several blocks and tasks in it or one of each."""
    if request.param == "small blocks":
        request.getfixturevalue("small_blocks")
    return LENGTHS[request.param]


@functools.cache
def limit(dtype):
    """B, in natural units."""
    limits = exponents.Limits.of(np.dtype(dtype))
    return limits.limit / limits.exponent_unit


def with_exponents(rows, wanted):
    """Inputs (n, d) whose products with the rows (m, d) are `wanted` (n, m), or as near as they can be."""
    return wanted @ np.linalg.pinv(rows).T


def at(length, places, far, near=0.0):
    """`far` at some places, and `near` at the others: (length, 1)."""
    return np.where(np.isin(np.arange(length), places), far, near)[:, None]


def signs(rng, length, rows):
    """Random signs and zeros, for each position and feature."""
    return rng.integers(-1, 2, (length, len(rows))).astype(float)


def one_hot(length, rows, step=1):
    """Position i has the feature i · step."""
    return np.eye(len(rows))[np.arange(length) * step % len(rows)]


# (rng, rows, length, size of the exponents) -> exponents of the queries, of the keys
HOSTILE = {
    "keys along minus a row, queries along it": lambda rng, rows, n, far: (
        far * np.eye(len(rows))[[0] * n],
        -far * np.eye(len(rows))[[0] * n],
    ),
    "keys along minus two rows, queries along one or the other": lambda rng, rows, n, far: (
        far * one_hot(n, rows[:2])[:, [0, 1] + [0] * (len(rows) - 2)],
        -far * np.eye(len(rows))[:2].sum(axis=0)[None].repeat(n, axis=0),
    ),
    "each key along minus a row, each query along another": lambda rng, rows, n, far: (
        far * one_hot(n, rows),
        -far * one_hot(n, rows, 2),
    ),
    "keys along a row, queries along minus it": lambda rng, rows, n, far: (
        -far * np.eye(len(rows))[[0] * n],
        far * np.eye(len(rows))[[0] * n],
    ),
    "signs of their own": lambda rng, rows, n, far: (far * signs(rng, n, rows), far * signs(rng, n, rows)),
    "signs of their own for the keys": lambda rng, rows, n, far: (signs(rng, n, rows), far * signs(rng, n, rows)),
    "signs of their own for the queries": lambda rng, rows, n, far: (far * signs(rng, n, rows), signs(rng, n, rows)),
    "one far query": lambda rng, rows, n, far: (at(n, [n // 2], far) * signs(rng, n, rows), signs(rng, n, rows)),
    "a far first query": lambda rng, rows, n, far: (at(n, [0], far) * one_hot(n, rows), signs(rng, n, rows)),
    "a far last query": lambda rng, rows, n, far: (at(n, [n - 1], -far) * one_hot(n, rows), signs(rng, n, rows)),
    "one far key": lambda rng, rows, n, far: (signs(rng, n, rows), at(n, [n // 2], far) * one_hot(n, rows, 2)),
    "a far first key": lambda rng, rows, n, far: (signs(rng, n, rows), at(n, [0], -far) * one_hot(n, rows)),
    "near, then far": lambda rng, rows, n, far: (
        signs(rng, n, rows),
        np.where(np.arange(n)[:, None] < n // 2, 0.1, far) * signs(rng, n, rows),
    ),
    "far, then near": lambda rng, rows, n, far: (
        np.where(np.arange(n)[:, None] < n // 2, far, 0.1) * signs(rng, n, rows),
        np.where(np.arange(n)[:, None] < n // 2, -far, 0.1) * np.abs(signs(rng, n, rows)),
    ),
    "growing": lambda rng, rows, n, far: (
        far * np.linspace(0, 1, n)[:, None] * signs(rng, n, rows),
        -far * np.linspace(0, 1, n)[:, None] * np.ones((n, len(rows))),
    ),
    "shrinking": lambda rng, rows, n, far: (
        signs(rng, n, rows),
        -far * np.linspace(1, 0, n)[:, None] * np.ones((n, len(rows))),
    ),
}
TIMES_THE_LIMIT = (0.9, 1.3, 5.0)


def cases(rng, name, length, dtype):
    """(map, options, query, key, value, cotangent, bound of the exponents), at sizes on both sides of the limits.

    Half of the combinations of maps and sizes for each of the two lengths.
    """
    combinations = list(product(MAPS.values(), TIMES_THE_LIMIT))[list(LENGTHS.values()).index(length) :: 2]
    for (estimator, width), times in combinations:
        phi = estimator.draw(DIM, width, rng=0, like=np.zeros(1, dtype))
        rows = phi.exponential_form(keys=True).rows.astype(np.float64)
        rows = rows[: len(rows) // 2] if isinstance(estimator, rf.HyperbolicFeatures) else rows
        wanted = HOSTILE[name](rng, rows, length, times * limit(dtype))
        query, key = (with_exponents(rows, x).astype(dtype) for x in wanted)
        value, cotangent = rng.standard_normal((2, length, VALUES)).astype(dtype)
        logs = max(np.max(np.abs(side(x).log_scale)) for side, x in ((phi.queries, query), (phi.keys, key)))
        yield phi, {"scale": 1.0}, query, key, value, cotangent, logs


def generic(function, phi, *inputs, **options):
    """The generic executor, in float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
        return function(phi.to(np.zeros(1)), *(x.astype(np.float64) for x in inputs), **options)


def attend(phi, query, key, value, **options):
    return rf.linear_attention(query, key, value, phi, **options)


def pull_back(phi, query, key, value, cotangent, **options):
    return rf.linear_attention_vjp(query, key, value, phi, cotangent, **options)


@pytest.fixture
def fast(monkeypatch):
    """Fails if a call is left to another executor."""
    for method in ("attend", "pull_back"):
        own = getattr(NumPyExecutor, method)

        def taken(self, *arguments, own=own):
            found = own(self, *arguments)
            assert found is not None
            return found

        monkeypatch.setattr(NumPyExecutor, method, taken)


@pytest.mark.usefixtures("fast")
@DTYPES
@MODES
@pytest.mark.parametrize("name", HOSTILE)
def test_outputs(rng, length, name, is_causal, dtype):
    """An exponent of size t is off by t eps, and so is each weight, relative to itself."""
    for phi, options, query, key, value, _, logs in cases(rng, name, length, dtype):
        given = {"is_causal": is_causal, **options}
        if rng.random() < 0.5:
            given["key_mask"] = rng.random(length) < 0.9
        out, state = attend(phi, query, key, value, return_state=True, **given)
        expected, last = generic(attend, phi, query, key, value, return_state=True, **given)
        bound = (32 * logs + 256) * eps_of(dtype)
        assert np.max(np.abs(out - expected)) <= bound * np.max(np.abs(value)), (phi, logs)
        assert np.max(np.abs(state.log_max - last.log_max)) <= bound, (phi, logs)
        assert np.max(np.abs(state.total - last.total)) <= bound * length, (phi, logs)


def gradient_sizes(phi, query, key, value, cotangent):
    """What gradients in values are made of, `|G|` summed, and those in queries and keys: times values and inputs."""
    total = np.sum(np.linalg.norm(cotangent.astype(np.float64), axis=-1))
    longest = np.sum(np.abs(phi.exponential_form(keys=True).rows), axis=-1).max()
    longest += max(np.linalg.norm(x, axis=-1).max() for x in (query, key))
    return total, total * np.max(np.abs(value)) * longest


@pytest.mark.usefixtures("fast")
@DTYPES
@MODES
@pytest.mark.parametrize("name", HOSTILE)
def test_gradients(rng, length, name, is_causal, dtype):
    """To the rounding of exponents, beside what they are made of; some with queries before every key that is there."""
    for phi, options, query, key, value, cotangent, logs in cases(rng, name, length, dtype):
        given = {"is_causal": is_causal, **options}
        if rng.random() < 0.5:
            given["key_mask"] = (rng.random(length) < 0.8) & (np.arange(length) > length // 4)
        ours = pull_back(phi, query, key, value, cotangent, **given)
        expected = generic(pull_back, phi, query, key, value, cotangent, **given)
        total, size = gradient_sizes(phi, query, key, value, cotangent)
        for mine, theirs, largest in zip(ours, expected, (size, size, total), strict=True):
            assert np.max(np.abs(mine - theirs)) <= (64 * logs + 512) * eps_of(dtype) * largest, (phi, logs)


@pytest.mark.usefixtures("fast")
@DTYPES
@MODES
@pytest.mark.parametrize("size", [-0.9, -0.75, 0.7, 0.8])
def test_values_of_any_size(rng, length, size, is_causal, dtype):
    """Outputs are linear in the values, gradients in queries and keys in values times gradients in the outputs.

    From next to the smallest to next to the largest number, with features up to the limit.
    """
    power = np.ldexp(1.0, int(size * np.log2(np.finfo(dtype).max)))
    for name in ("keys along a row, queries along minus it", "signs of their own", "a far first query"):
        for phi, options, query, key, value, cotangent, logs in cases(rng, name, length, dtype):
            given = {"is_causal": is_causal, **options}
            out = attend(phi, query, key, value, **given)
            large = attend(phi, query, key, value * np.dtype(dtype).type(power), **given).astype(np.float64)
            assert np.max(np.abs(large / power - out)) <= (64 * logs + 512) * eps_of(dtype) * np.max(np.abs(value)), phi
            if is_causal and size == 0.8:
                continue  # features times gradients of 1e-246 leave the range of float64
            shrunk = (cotangent / power).astype(dtype)
            found = pull_back(phi, query, key, value * np.dtype(dtype).type(power), shrunk, **given)
            expected = generic(pull_back, phi, query, key, value, cotangent, **given)
            total, size = gradient_sizes(phi, query, key, value, cotangent)
            found = (*found[:2], found[2].astype(np.float64) * power)
            for mine, theirs, largest in zip(found, expected, (size, size, total), strict=True):
                assert np.max(np.abs(mine - theirs)) <= (64 * logs + 512) * eps_of(dtype) * largest, phi


@pytest.mark.usefixtures("fast")
@DTYPES
@MODES
def test_factors_of_keys_that_underflow(rng, length, is_causal, dtype):
    """Half of the keys have a small feature, the others a large one and a factor `e^{-|k|²/2}` that underflows.

    The two kinds have weights of similar size. With s = -log(tiny): features up to e^{0.41 s}, factors below e^{-s}.
    The other feature is like the first one, or an ordinary one, which the first half of the queries reads.
    """
    smallest = -np.log(np.finfo(dtype).tiny)
    phi = rf.PositiveFeatures().draw(DIM, 2, rng=0, like=np.zeros(1, dtype))
    rows = phi.arrays["rows"].astype(np.float64)
    across = np.linalg.svd(rows)[2][-1]
    value, cotangent = rng.standard_normal((2, length, VALUES)).astype(dtype)
    early, odd = np.arange(length)[:, None] < length // 2, np.arange(length)[:, None] % 2
    for large, small, other in product((0.2, 0.28, 0.35, 0.41), (0.45, 0.7, 0.85), (1.0, 0.0)):
        near, far = (
            with_exponents(rows, size * smallest * np.array([[1.0, other]]))[0] for size in (large, -small)
        )  # fmt: skip
        missing = far @ far + 2 * (large + small) * smallest - near @ near
        assert missing > 0
        key = np.where(odd, near + np.sqrt(missing) * across, far).astype(dtype)
        ordinary = with_exponents(rows, large * smallest * np.array([[0.0, 1.0]]))[0]
        query = (np.where(early & (other == 0), ordinary, near) + np.zeros((length, 1))).astype(dtype)
        agrees(phi, query, key, value, cotangent, is_causal=is_causal)


@pytest.mark.usefixtures("fast")
@DTYPES
@MODES
@pytest.mark.parametrize("along", [0.05, 0.15, 0.25])
def test_features_that_underflow_and_factors_that_do_not(rng, length, along, is_causal, dtype):
    """All features of all keys are below the smallest number, and what makes up for it is not above the largest."""
    smallest = -np.log(np.finfo(dtype).tiny)
    phi = rf.PositiveFeatures().draw(DIM, 2, rng=0, like=np.zeros(1, dtype))
    rows = phi.arrays["rows"].astype(np.float64)
    across = np.linalg.svd(rows)[2][-1]
    query = (with_exponents(rows, np.full((length, 2), along * smallest)) + np.zeros((length, 1))).astype(dtype)
    key = with_exponents(rows, np.full((length, 2), -1.02 * smallest)) + rng.standard_normal((length, 1)) * across
    value, cotangent = rng.standard_normal((2, length, VALUES)).astype(dtype)
    agrees(phi, query, key.astype(dtype), value, cotangent, is_causal=is_causal)


def agrees(phi, query, key, value, cotangent, **options):
    """Outputs and gradients in values are those of the generic executor, to the rounding of exponents."""
    options = {"scale": 1.0, **options}
    logs = np.max(np.abs(phi.keys(key).log_scale))
    bound = (64 * logs + 512) * eps_of(value.dtype.name) * np.max(np.abs(value))
    out = attend(phi, query, key, value, **options)
    assert np.max(np.abs(out - generic(attend, phi, query, key, value, **options))) <= bound
    ours = pull_back(phi, query, key, value, cotangent, **options)[2]
    theirs = generic(pull_back, phi, query, key, value, cotangent, **options)[2]
    assert np.max(np.abs(ours - theirs)) <= bound * np.sum(np.abs(cotangent))


@pytest.mark.usefixtures("fast")
@MODES
def test_states_and_what_follows_them(rng, length, is_causal):
    """The sums of hostile keys go on with ordinary ones, and the other way round, up to rounding."""
    for name in ("signs of their own for the keys", "keys along minus two rows, queries along one or the other"):
        for phi, options, query, key, value, _, logs in cases(rng, name, length, "float32"):
            plain = with_exponents(
                phi.exponential_form(keys=True).rows, rng.standard_normal((length, phi.num_features))
            )
            for first, second in ((key, plain.astype("float32")), (plain.astype("float32"), key)):
                given = {"is_causal": is_causal, **options}
                _, state = attend(phi, query, first, value, return_state=True, **given)
                out = attend(phi, query, second, -value, initial_state=state, **given)
                given.pop("is_causal")
                if is_causal:
                    given |= {"is_causal": True, "causal_offset": length}
                expected = generic(
                    attend, phi, query, np.concatenate([first, second]), np.concatenate([value, -value]), **given
                )
                bound = (64 * logs + 512) * eps_of("float32") * np.max(np.abs(value))
                assert np.max(np.abs(out - expected)) <= bound, (name, phi, logs)
