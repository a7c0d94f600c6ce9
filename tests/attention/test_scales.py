"""The invariants of attention at any scale, in one table: inputs × scale × dtype × library × map, each by every law.

Inputs are random ones, and a head of a vision transformer with logits from 107 to 282; both also 10 and 100 times as
long, so that logits reach millions. At such sizes the exponents of features are rounded by whole numbers: outputs are
then not accurate, but every law that does not ask for accuracy holds, and is tested.

Values have a column of ones, so that what it gives is the sum of the weights. 70 positions are several chunks' worth of
halvings, and on NumPy arrays the fast pass; its pieces of 35 take the generic one.
"""

import functools
import importlib

import numpy as np
import pytest

import randfeat as rf
from experiments.heads import load_head
from randfeat.attention import executors
from tests.arrays import asarray, compiled, computing, dtype_of, eps_of, library, same_bits, to_numpy

LENGTH, DIM, WIDTH, CUT = 70, 64, 32, 35
SCALES = (1, 10, 100)
MASK = (np.arange(LENGTH) * 7) % 5 != 0
MAPS = ("positive", "hyperbolic", "posterior")
SOURCES = ("random", "vit")


@functools.cache
def source(name):
    """float64 query, key (70, 64) and value (70, 5), whose last column is 1."""
    if name == "random":
        query, key, value = np.random.default_rng(5).standard_normal((3, LENGTH, DIM))
    else:
        head = load_head("vit/flower/L3H4")
        logits = head.query @ head.key.T / 8
        rows = [np.unravel_index(which, logits.shape) for which in (logits.argmin(), logits.argmax())]
        others = np.linspace(0, len(logits) - 1, LENGTH - 2).astype(int)
        query, key = (side[[*others, *(row[i] for row in rows)]] for i, side in enumerate((head.query, head.key)))
        value = head.value[:LENGTH]
        logits = query @ key.T / 8
        assert logits.min() < 107
        assert logits.max() > 281
    return query, key, np.concatenate([value[:, :4], np.ones((LENGTH, 1))], axis=-1)


@functools.cache
def estimator(name, source_name, scale):
    """The maps; the posterior one is fitted to the inputs at their scale."""
    if name == "posterior":
        query, key, _ = source(source_name)
        return rf.adapt(scale * query, scale * key, level="posterior", num_features=WIDTH, rng=0)
    return {"positive": rf.PositiveFeatures(), "hyperbolic": rf.HyperbolicFeatures()}[name]


class Case:
    """One combination, with the function to test; `agreement` bounds what rounding may do to an output."""

    def __init__(self, xp, dtype, map_name, source_name, scale):
        self.xp, self.dtype = xp, dtype
        query, key, value = source(source_name)
        self.inputs = tuple(to_numpy(asarray(xp, x, dtype)) for x in (scale * query, scale * key, value))
        self.phi = estimator(map_name, source_name, scale).draw(DIM, WIDTH, rng=0, like=self.array(query))
        eps, value = eps_of(computing(dtype)), self.inputs[2]
        self.size = np.max(np.abs(value))
        self.output_eps = eps_of(dtype) if dtype != computing(dtype) else 0.0
        # numerator and denominator are sums of the same S · WIDTH positive terms
        self.slack = (2 * (LENGTH * WIDTH + 16) * eps + self.output_eps) * self.size
        logs = max(
            float(np.max(np.abs(to_numpy(side(self.array(x * DIM**-0.25)).log_scale))))
            for side, x in zip((self.phi.queries, self.phi.keys), self.inputs[:2], strict=True)
        )
        # each exponent is a sum of DIM products, and rounds to its own eps at every step; twice, as two are compared
        self.agreement = 2 * self.size * (2 * (DIM + 8) * 4 * logs * eps + self.output_eps) + 2 * self.slack

    def array(self, x):
        return asarray(self.xp, x, self.dtype)

    def attend(self, query, key, value, *, is_causal=False, mask=None, state=None, return_state=False):
        """linear_attention of NumPy arrays; under JAX compiled, once for each shape."""
        arrays = [self.array(x) for x in (query, key, value)]
        run = jitted(self.xp, is_causal, return_state)
        out = run(*arrays, self.phi, None if mask is None else self.xp.asarray(mask), state)
        for x in (out[0], out[1].total) if return_state else (out,):
            assert np.all(np.isfinite(to_numpy(x)))
        return (to_numpy(out[0]), out[1]) if return_state else to_numpy(out)

    def close(self, actual, expected):
        """Equal up to rounding, or inside of the values where rounding is larger than they are."""
        assert np.max(np.abs(to_numpy(actual) - to_numpy(expected))) <= self.agreement


@functools.cache
def jitted(xp, is_causal, return_state):
    def run(query, key, value, phi, mask, state):
        return rf.linear_attention(
            query, key, value, phi, is_causal=is_causal, key_mask=mask, initial_state=state, return_state=return_state
        )

    if library(xp) == "jax":
        importlib.import_module("randfeat.integrations.jax")  # feature maps as arguments
    return run if return_state else compiled(xp, run)


# the laws --------------------------------------------------------------------------------------------------------


def convex(case):
    """Rows sum to 1, outputs are within the values that they mix, in the dtype of the inputs; the first is v_0."""
    query, key, value = case.inputs
    for is_causal in (False, True):
        arrays = [case.array(x) for x in case.inputs]
        assert jitted(case.xp, is_causal, False)(*arrays, case.phi, None, None).dtype == dtype_of(case.xp, case.dtype)
        out = case.attend(query, key, value, is_causal=is_causal)
        low, high = (
            combine.accumulate(value) if is_causal else combine.reduce(value) for combine in (np.minimum, np.maximum)
        )
        assert np.all((out >= low - case.slack) & (out <= high + case.slack))
        assert np.max(np.abs(out[:, -1] - 1)) <= case.slack / case.size
        assert not is_causal or np.max(np.abs(out[0] - value[0])) <= case.slack


def blind_to_the_future(case):
    """Bit-equal outputs whatever comes after: other queries, keys and values, some a thousand times as large.

    Returns whether later outputs did change: where one early key has all weight, they need not.
    """
    query, key, value = case.inputs
    before = case.attend(query, key, value, is_causal=True)
    later = [x.copy() for x in case.inputs]
    for x, factor in zip(later, (-1.0, -1.5, 1000.0), strict=True):
        x[CUT:] *= factor
    after = case.attend(*later, is_causal=True)
    assert same_bits(after[:CUT], before[:CUT])
    return not same_bits(after[CUT:], before[CUT:])


def masked_is_absent(case):
    """What a masked key and its value hold is irrelevant to the last bit; left out, it gives the same numbers.

    Returns whether the mask changed anything: where one key has all weight, it need not.
    """
    matters = False
    query, key, value = case.inputs
    for is_causal in (False, True):
        mask = MASK if not is_causal else np.arange(LENGTH) < CUT
        clean = case.attend(query, key, value, is_causal=is_causal, mask=mask)
        spoilt = key.copy(), value.copy()
        for x in spoilt:
            x[~mask] = np.nan
        assert same_bits(case.attend(query, *spoilt, is_causal=is_causal, mask=mask), clean)
        case.close(clean, case.attend(query, key[mask], value[mask], is_causal=is_causal))
        plain = case.attend(query, key, value, is_causal=is_causal)
        matters |= bool(np.any(np.abs(plain - clean) > case.slack + 2 * case.agreement))
    return matters


def streams(case):
    """Prefill and continue = step by step = split and merge = one pass."""
    query, key, value = case.inputs
    first, second = slice(0, CUT), slice(CUT, LENGTH)

    def piece(part, is_causal=True, state=None):
        return case.attend(*(x[part] for x in case.inputs), is_causal=is_causal, state=state, return_state=True)

    whole = case.attend(query, key, value, is_causal=True)
    start, left = piece(first)
    rest, _ = piece(second, state=left)
    case.close(np.concatenate([start, rest]), whole)
    step, _ = piece(slice(CUT, CUT + 1), state=left)
    case.close(step, whole[CUT : CUT + 1])
    _, right = piece(second)
    case.close(case.attend(query, key, value), read(case, left.merge(right)))
    case.close(case.attend(query, key, value), read(case, right.merge(left)))


def read(case, state):
    """What all queries read in a state."""
    query = case.array(case.inputs[0])
    query = case.xp.astype(query, dtype_of(case.xp, computing(case.dtype)))
    return state.read(case.phi.queries(query * DIM**-0.25))


LAWS = (convex, blind_to_the_future, masked_is_absent, streams)


@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_laws_at_every_scale(xp, dtype, map_name):
    """array-api-strict is slow, and JAX compiles: there less of the table, as all of it runs on NumPy and PyTorch."""
    name = library(xp)
    if name == "array_api_strict" and (map_name == "hyperbolic" or dtype != "float32"):
        pytest.skip("positive and posterior features in float32 only")
    if name == "jax" and (dtype, map_name) not in (("float32", "positive"), ("bfloat16", "positive")):
        pytest.skip("compiled for positive features in float32 and bfloat16 only")
    dtype_of(xp, dtype)
    laws = (convex, blind_to_the_future) if name == "jax" else LAWS
    telling, mattered = 0, {law: False for law in (blind_to_the_future, masked_is_absent) if law in laws}
    for source_name in SOURCES:
        for scale in SCALES if name != "array_api_strict" else SCALES[:2]:
            case = Case(xp, dtype, map_name, source_name, scale)
            telling += case.agreement < 0.1 * case.size
            for law in laws:
                changed = law(case)
                if law in mattered:
                    mattered[law] |= changed
    # where agreement is no more than being inside of the values, the other laws are what is tested
    assert telling >= (4 if dtype == "float64" else 1)
    assert all(mattered.values())


# planted mistakes ------------------------------------------------------------------------------------------------


def one_maximum(features):
    """Features that lose what is far below the largest of all: a single shift, in the range of the dtype."""
    top = np.max(features.log_scale)
    return rf.Features(features.values * np.exp(features.log_scale - top), 0 * features.log_scale[..., :1] + top)


def test_a_single_shift_is_caught(monkeypatch):
    """One maximum for all keys and features instead of one for each feature: rows without any weight."""
    case = Case(np, "float32", "positive", "vit", 10)
    for law in LAWS:
        law(case)
    plain = rf.FeatureMap.keys
    monkeypatch.setattr(rf.FeatureMap, "keys", lambda self, y: one_maximum(plain(self, y)))
    monkeypatch.setattr(executors, "EXECUTORS", executors.EXECUTORS[-1:])
    for law in (convex, blind_to_the_future):
        with pytest.raises(AssertionError):
            law(case)
