"""What stands behind a mask changes no bit of what is fitted, ranked, predicted or diagnosed."""

import dataclasses

import numpy as np
import pytest

import randfeat as rf
from randfeat.selection.adaptation import LEVELS

LENGTH = 40
QUERY, KEY, VALUE = np.random.default_rng(0).standard_normal((3, 2, LENGTH, 6))
PRESENT = np.random.default_rng(1).random((2, LENGTH)) < 0.7
MASKS = {"key_mask": PRESENT, "query_mask": PRESENT}
CONTENTS = {"large": 1e150, "infinite": np.inf, "not a number": np.nan}


def filled(content, *sides):
    """The arrays with this number wherever they are masked."""
    return [np.where(PRESENT[..., None], side, content) for side in sides]


def bits(result):
    """Everything that a result holds, as bytes."""
    if isinstance(result, np.ndarray):
        return result.dtype.str, result.shape, result.tobytes()
    if dataclasses.is_dataclass(result):
        return type(result).__name__, *(bits(getattr(result, field.name)) for field in dataclasses.fields(result))
    if isinstance(result, dict):
        return tuple((name, bits(part)) for name, part in result.items())
    if isinstance(result, list | tuple):
        return tuple(map(bits, result))
    return bits(np.asarray(result)) if isinstance(result, float | np.generic) else repr(result)


def ranking(query, key, value):
    found = rf.recommend(
        query, key, value, num_features=16, num_queries=8, num_draws=2, couplings="orthogonal", **MASKS
    )
    return found.average_error, found.largest_error, [(one.name, one.errors) for one in found]


def diagnosis(query, key, value, **options):
    phi = rf.PositiveFeatures().draw(6, 16, rng=0)
    return rf.attention_diagnostics(query, key, phi, value, key_mask=PRESENT, **options)


RESULTS = {
    **{
        f"adapt {level}": lambda q, k, v, level=level: rf.adapt(q, k, value=v, level=level, num_features=32, **MASKS)
        for level in LEVELS
    },
    "recommend": ranking,
    "predict": lambda q, k, v: rf.predict_attention_error(rf.PositiveFeatures(), QUERY, k, v, 16, key_mask=PRESENT),
    "predict accurate": lambda q, k, v: rf.predict_attention_error(
        rf.PositiveFeatures(), QUERY, k, v, 16, key_mask=PRESENT, is_causal=True, scale=1e-3
    ),
    "diagnostics": lambda q, k, v: diagnosis(QUERY, k, v),
    "diagnostics causal": lambda q, k, v: diagnosis(QUERY, k, v, is_causal=True),
}  # fmt: skip


@pytest.fixture(scope="module")
def expected():
    """Results with zeros behind the mask, made once."""
    return {name: bits(make(*filled(0.0, QUERY, KEY, VALUE))) for name, make in RESULTS.items()}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", RESULTS)
def test_no_bit_depends_on_masked_content(name, content, expected):
    assert bits(RESULTS[name](*filled(CONTENTS[content], QUERY, KEY, VALUE))) == expected[name]


@pytest.mark.parametrize("name", RESULTS)
def test_the_test_sees_what_is_not_masked(name, expected):
    """The same difference at a key that takes part."""
    key = KEY.copy()
    key[1, np.flatnonzero(PRESENT[1])[3]] += 0.01
    assert bits(RESULTS[name](QUERY, key, VALUE)) != expected[name]


@pytest.mark.parametrize("seed", [4, 6, 7])
def test_pilots_of_adapt_compare_what_is_seen(seed):
    """300 masked keys beside 40 others: the scale of the anchors is chosen as without them."""
    query, key, value = 1.5 * np.random.default_rng(seed).standard_normal((3, 40, 6))
    padded = [np.concatenate([side, np.zeros((300, 6))]) for side in (key, value + 2)]
    options = {"num_features": 32, "rng": seed}
    masked = rf.adapt(query, padded[0], value=padded[1], key_mask=np.arange(340) < 40, **options)
    truncated = rf.adapt(query, key, value=value + 2, **options)
    np.testing.assert_allclose(masked.base.matrix, truncated.base.matrix, rtol=1e-9)
