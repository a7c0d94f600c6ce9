"""The error of an output: exact where all rows are drawn, unbiased sums, coverage, on every library."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.compressed.audit import draw
from tests.arrays import asarray
from tests.compressed.heads import head
from tests.compressed.naive import relative


def test_all_rows_give_the_error_itself(xp, rng):
    query, key, value = head(rng, 60, 50, lead=(2, 3))
    exact = rf.softmax_attention(query, key, value, is_causal=True, causal_offset=-3)
    output = exact + 0.1 * rng.standard_normal(exact.shape)
    arrays = [asarray(xp, x) for x in (query, key, value, output)]
    check = rf.output_error(*arrays, num_rows=60, is_causal=True, causal_offset=-3)
    expected = [[relative(o, e) for o, e in zip(*pair, strict=True)] for pair in zip(output, exact, strict=True)]
    assert np.max(np.abs(check.error - expected)) < 1e-12
    assert np.array_equal(check.upper, check.error)
    assert check.rows.shape == (2, 3, 60)


def test_masks_and_grouped_heads(xp, rng):
    query, (_, key, value) = head(rng, 60, lead=(2, 4))[0], head(rng, 60, lead=(2, 2))
    keys, queries = rng.random((2, 2, 60)) < 0.7, np.arange(60) < 40
    options = {"enable_gqa": True, "layout": "blhd"}
    exact = rf.softmax_attention(query, key, value, key_mask=keys, enable_gqa=True)
    output = exact + 0.1 * rng.standard_normal(exact.shape)
    output[:, :, 40:] = 1e30
    arrays = [xp.permute_dims(asarray(xp, x), (0, 2, 1, 3)) for x in (query, key, value, output)]
    check = rf.output_error(*arrays, num_rows=60, key_mask=xp.asarray(keys), query_mask=xp.asarray(queries), **options)
    for index in np.ndindex(2, 4):
        assert check.error[index] == pytest.approx(relative(output[index][:40], exact[index][:40]), rel=1e-10)


def test_weights_of_the_sample_are_unbiased(rng):
    """The mean over 2000 samples of Σ ω a / r is the mean of a: a z-test at 5 sigma, which a missing weight fails."""
    queries = rng.standard_normal((50, 3))
    queries[:5] *= 20
    a = np.abs(queries).sum(1)
    counted = np.ones(50, bool)
    counted[7] = False
    means = []
    for generator in rng.spawn(2000):
        index, weights = draw(queries, counted, 10, generator)
        assert 7 not in index
        means.append(np.mean(weights * a[index]))
    expected = a[counted].mean()
    assert abs(np.mean(means) - expected) < 5 * np.std(means) / np.sqrt(2000)
    unweighted = [a[draw(queries, counted, 10, generator)[0]].mean() for generator in rng.spawn(200)]
    assert np.mean(unweighted) - expected > 5 * np.std(unweighted) / np.sqrt(200)  # the test sees the weights


@pytest.mark.parametrize("spread", [0.0, 1.0], ids=["even", "uneven"])
def test_the_upper_value_is_exceeded_rarely(rng, spread):
    """Coverage of 200 samples: at least 0.95 minus 3 standard errors, 0.904; half the width would cover about 0.8."""
    query, key, value = head(rng, 500)
    exact = rf.softmax_attention(query, key, value)
    output = exact + 0.1 * np.exp(spread * rng.standard_normal((500, 1))) * rng.standard_normal(exact.shape)
    true = relative(output, exact)
    whole = [np.broadcast_to(x, (200, *x.shape)) for x in (query, key, value, output)]
    check = rf.output_error(*whole, rng=1)
    assert np.mean(true <= check.upper) > 0.904
    assert np.median(check.upper / true) < 1.5
    assert abs(np.median(check.error / true) - 1) < 0.15  # a ratio of sums with a heavy tail has a median below


def test_libraries_draw_the_same_rows(xp, rng):
    query, key, value = head(rng, 100)
    output = rf.clustered_attention(query, key, value, num_clusters=4)
    expected = rf.output_error(query, key, value, output, num_rows=20)
    found = rf.output_error(*(asarray(xp, x) for x in (query, key, value, output)), num_rows=20)
    assert np.array_equal(found.rows, expected.rows)
    assert np.max(np.abs(found.error - expected.error)) < 1e-12


def test_the_output_may_be_of_another_library(xp, rng):
    query, key, value = head(rng, 100)
    expected = rf.output_error(query, key, value, value, num_rows=20)
    arrays = [asarray(xp, x) for x in (query, key, value)]
    for found in (
        rf.output_error(*arrays, value, num_rows=20),
        rf.output_error(query, key, value, arrays[2], num_rows=20),
    ):
        assert np.max(np.abs(found.error - expected.error)) < 1e-12


def test_masked_rows_may_be_nan(rng):
    query, key, value = head(rng, 5, lead=(1,))
    output = rf.softmax_attention(query, key, value)
    output[:, 0] = np.nan
    assert rf.output_error(query, key, value, output, query_mask=np.arange(5) > 0).error == 0


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)], ids=["no heads", "no queries"])
def test_nothing_has_no_error(shape):
    arrays = [np.zeros((*shape, 4))] * 4
    assert rf.output_error(*arrays).error.shape == shape[:1]


def test_an_exact_output_has_no_error_above_the_least_statement(rng):
    query, key, value = head(rng, 100)
    check = rf.output_error(query, key, value, rf.softmax_attention(query, key, value))
    assert check.error < 1e-12
    assert check.upper == 0.01
    zero = rf.output_error(query, key, 0 * value, 0 * value)
    assert zero.error == 0
    assert np.isinf(rf.output_error(query, key, 0 * value, value).error)


@pytest.mark.parametrize("name", ["query", "output"])
def test_nan_is_not_hidden(rng, name):
    query, key, value = head(rng, 100)
    output = value.copy()
    {"query": query, "output": output}[name][:] = np.nan
    assert np.isnan(rf.output_error(query, key, value, output).error)


def test_the_report_fits_a_line(rng):
    check = rf.output_error(*head(rng, 100, lead=(2,)), np.zeros((2, 100, 5)), num_rows=20)
    assert repr(check) == "OutputError(error=[1. 1.], upper=[1. 1.], num_rows=20)"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_rows": 1}, ValueError, "num_rows must be at least 2"),
        ({"causal_offset": 2}, ValueError, "causal_offset needs is_causal=True"),
        ({"output": np.zeros((100, 4))}, ValueError, r"output must have the shape \(100, 5\)"),
    ],
    ids=["one row", "offset", "shape"],
)
def test_bad_arguments(rng, options, error, message):
    query, key, value = head(rng, 100)
    with pytest.raises(error, match=message):
        rf.output_error(query, key, value, options.pop("output", value), **options)
