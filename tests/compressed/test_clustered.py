"""Clustered attention: against its naive twin and exact attention, on every library, at every scale."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.compressed.options import Options
from tests.arrays import asarray, eps_of, to_numpy
from tests.compressed.heads import edge_cases, head
from tests.compressed.naive import clustered as naive_clustered
from tests.compressed.naive import relative

CASES = list(edge_cases(np.random.default_rng(0)))
ROUNDING = 1e-11  # of sums of some hundred float64 terms, in exponents of some hundred


@pytest.fixture
def never_exact(monkeypatch):
    """Clusters also where exact attention takes fewer operations, as it does for short sequences."""
    monkeypatch.setattr(Options, "is_dearer_than_exact", lambda self, length, num_keys: False)


@pytest.mark.usefixtures("never_exact")
@pytest.mark.parametrize("second_order", [False, True], ids=["first order", "second order"])
def test_equals_the_naive_twin(xp, rng, second_order):
    query, key, value = head(rng, 120, 90)
    clusters = rf.QueryClusters.fit(query, key, num_clusters=5, scale=1.0)
    expected = naive_clustered(query, key, value, clusters, 7, second_order=second_order)
    arrays = (asarray(xp, x) for x in (query, key, value))
    found = rf.clustered_attention(*arrays, clusters=clusters, num_exact=7, second_order=second_order)
    assert relative(to_numpy(found), expected) < ROUNDING
    assert relative(expected, rf.softmax_attention(query, key, value, scale=1.0)) > 1e-3  # it was no exact attention


@pytest.mark.usefixtures("never_exact")
@pytest.mark.parametrize("name", CASES)
def test_edge_cases_are_finite_and_within_the_values(xp, rng, name):
    query, key, value = edge_cases(rng)[name]
    with np.errstate(all="raise", under="ignore"):
        output = to_numpy(rf.clustered_attention(*(asarray(xp, x) for x in (query, key, value)), num_clusters=6))
    slack = 1e-12 * np.abs(value).max()
    assert output.shape == (len(query), value.shape[1])
    assert np.all((value.min(0) - slack <= output) & (output <= value.max(0) + slack))


@pytest.mark.usefixtures("never_exact")
@pytest.mark.parametrize("name", ["one query", "one key", "few queries", "equal keys", "two queries", "zero"])
def test_is_exact_where_nothing_is_lost(xp, rng, name):
    query, key, value = edge_cases(rng)[name]
    exact = rf.softmax_attention(query, key, value)
    found = rf.clustered_attention(*(asarray(xp, x) for x in (query, key, value)), num_clusters=6)
    assert np.max(np.abs(to_numpy(found) - exact)) < 1e-11


def test_is_exact_where_exact_attention_is_cheaper(rng):
    query, key, value = head(rng, 140)
    assert np.array_equal(rf.clustered_attention(query, key, value), rf.softmax_attention(query, key, value))
    query, key, value = head(rng, 300)
    assert not np.allclose(rf.clustered_attention(query, key, value), rf.softmax_attention(query, key, value))
    assert np.array_equal(
        rf.clustered_attention(query, key, value, num_exact=300), rf.softmax_attention(query, key, value)
    )


@pytest.mark.usefixtures("never_exact")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("size", [1.0, 100.0], ids=["logits of 1", "logits of 10000"])
def test_half_types_are_computed_in_float32(xp, rng, dtype, size):
    arrays = [asarray(xp, x, dtype) for x in head(rng, size=size)]
    output = rf.clustered_attention(*arrays, num_clusters=6)
    assert output.dtype == arrays[2].dtype
    rounded = [to_numpy(x) for x in arrays]
    wide = to_numpy(rf.clustered_attention(*(x.astype(np.float32) for x in rounded), num_clusters=6))
    assert np.all(np.isfinite(to_numpy(output)))
    if size == 1.0:
        assert np.max(np.abs(to_numpy(output) - wide)) < 8 * max(eps_of(dtype), 4e-6)


@pytest.mark.usefixtures("never_exact")
def test_masked_content_is_irrelevant_and_masked_is_truncated(xp, rng):
    query, key, value = head(rng)
    keys, queries = np.arange(150) < 100, np.arange(150) < 120
    spoiled = np.where(queries[:, None], query, 1e30), *(np.where(keys[:, None], x, 1e30) for x in (key, value))
    found = to_numpy(
        rf.clustered_attention(
            *(asarray(xp, x) for x in spoiled),
            num_clusters=6, key_mask=xp.asarray(keys), query_mask=xp.asarray(queries),
        )
    )  # fmt: skip
    expected = rf.clustered_attention(query[:120], key[:100], value[:100], num_clusters=6)
    assert np.max(np.abs(found[:120] - expected)) < ROUNDING
    assert np.all(np.isfinite(found))


@pytest.mark.usefixtures("never_exact")
def test_heads_with_different_numbers_of_keys(xp, rng):
    query, key, value = head(rng, lead=(4,))
    lengths = np.array([150, 20, 5, 0])
    mask = np.arange(150) < lengths[:, None]
    arrays = [asarray(xp, x) for x in (query, key, value)]
    found = to_numpy(rf.clustered_attention(*arrays, num_clusters=6, key_mask=xp.asarray(mask)))
    exact = rf.softmax_attention(query, key, value, key_mask=mask)
    assert np.max(np.abs(found[2:] - exact[2:])) < ROUNDING  # 12 keys are read as they are
    assert np.all(found[3] == 0)
    assert relative(found[0], exact[0]) < 0.2


@pytest.mark.usefixtures("never_exact")
def test_leading_axes_are_independent_heads(rng):
    query, key, value = head(rng, lead=(2, 3))
    whole = rf.clustered_attention(query, key[:, :1], value, num_clusters=6, rng=5)
    changed = query.copy()
    changed[1, 2] += 1
    again = rf.clustered_attention(changed, key[:, :1], value, num_clusters=6, rng=5)
    assert np.array_equal(whole[0], again[0])
    assert np.array_equal(whole[1, :2], again[1, :2])
    alone = rf.clustered_attention(query[0, 0], key[0, 0], value[0, 0], num_clusters=6, rng=5)
    assert np.array_equal(whole[0, 0], alone)  # the seed of a head does not depend on the number of heads


@pytest.mark.usefixtures("never_exact")
@pytest.mark.parametrize("make", [lambda: 3, lambda: np.random.SeedSequence(3)], ids=["int", "sequence"])
def test_equal_seeds_give_equal_results_and_are_not_used_up(rng, make):
    query, key, value = head(rng)
    seed = make()
    for function in (
        lambda: rf.clustered_attention(query, key, value, num_clusters=6, rng=seed),
        lambda: rf.compress(key, value, num_keys=12, queries=query, rng=seed).keys,
        lambda: rf.QueryClusters.fit(query, key, num_clusters=6, rng=seed).centers,
        lambda: rf.output_error(query, key, value, value, num_rows=20, rng=seed).error,
    ):
        assert np.array_equal(function(), function())
    generator = np.random.default_rng(3)
    first, second = (rf.clustered_attention(query, key, value, num_clusters=6, rng=generator) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.usefixtures("never_exact")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("size", [20.0, 40.0, 80.0])
def test_heads_with_a_sink(xp, rng, dtype, size):
    """All pilots attend to one key, so that the metric of the clusters is a matrix of rounding errors."""
    query, key, value = rng.standard_normal((3, 10, 100, 16))
    query[..., 0], key[..., 0, :], key[..., 0, 0] = 8, 0, size
    arrays = [asarray(xp, x, dtype) for x in (query, key, value)]
    found = to_numpy(rf.clustered_attention(*arrays, num_clusters=8))
    exact = rf.softmax_attention(*(to_numpy(x) for x in arrays))
    assert np.all(np.isfinite(found))
    assert relative(found, exact) < 0.3


@pytest.mark.usefixtures("never_exact")
def test_grouped_heads_share_clusters_and_tables(xp, rng):
    query = head(rng, lead=(2, 6))[0]
    _, key, value = head(rng, lead=(2, 2))
    arrays = [asarray(xp, x) for x in (query, key, value)]
    found = to_numpy(rf.clustered_attention(*arrays, num_clusters=12, enable_gqa=True))
    pooled = query.reshape(2, 2, 450, 8)
    expected = rf.clustered_attention(pooled, key, value, num_clusters=12).reshape(2, 6, 150, 5)
    assert np.max(np.abs(found - expected)) < ROUNDING
    swapped = [xp.permute_dims(x, (0, 2, 1, 3)) for x in arrays]
    other = rf.clustered_attention(*swapped, num_clusters=12, enable_gqa=True, layout="blhd")
    assert np.max(np.abs(np.swapaxes(to_numpy(other), 1, 2) - found)) < ROUNDING


@pytest.mark.usefixtures("never_exact")
def test_an_offset_of_all_keys_cancels(rng):
    query, key, value = head(rng)
    expected = rf.clustered_attention(query, key, value, num_clusters=6)
    found = rf.clustered_attention(query, key + 1000.0, value, num_clusters=6)
    assert np.max(np.abs(found - expected)) < 1e-8  # rounding of logits of 1e4


@pytest.mark.usefixtures("never_exact")
def test_does_not_depend_on_the_number_of_threads(rng):
    arrays = head(rng, lead=(5,))
    outputs = [rf.clustered_attention(*arrays, num_clusters=6, num_threads=number) for number in (1, 2, 3)]
    assert all(np.array_equal(outputs[0], output) for output in outputs)


@pytest.mark.usefixtures("never_exact")
@pytest.mark.parametrize("where", ["key", "value", "query"])
def test_what_is_not_finite_spoils_the_outputs_that_see_it(xp, rng, where):
    query, key, value = head(rng)
    clean = rf.clustered_attention(query[:149], key, value, num_clusters=6)
    {"key": key, "value": value, "query": query}[where][-1, 0] = np.nan
    found = to_numpy(rf.clustered_attention(*(asarray(xp, x) for x in (query, key, value)), num_clusters=6))
    if where == "query":
        assert np.all(np.isnan(found[-1]))
        assert np.max(np.abs(found[:-1] - clean)) < ROUNDING
    else:
        assert np.all(np.isnan(found[:, 0]))


@pytest.mark.usefixtures("never_exact")
def test_gradients_hold_the_fit_constant(rng):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    query, key, value = head(rng, 40, dim=4, value_dim=2)
    clusters = rf.QueryClusters.fit(query, key, num_clusters=3)
    arrays = [torch.from_numpy(x).requires_grad_() for x in (query, key, value)]

    def output(q, k, v):
        return rf.clustered_attention(q, k, v, clusters=clusters)

    assert torch.autograd.gradcheck(output, arrays)


@pytest.mark.usefixtures("never_exact")
def test_jax_gives_the_gradients_of_pytorch(rng):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    jax = pytest.importorskip("jax", reason="pip install '.[frameworks]'")
    arrays = head(rng, 40, dim=4, value_dim=2)
    found = jax.grad(lambda *x: (rf.clustered_attention(*x, num_clusters=3) ** 2).sum(), argnums=(0, 1, 2))(
        *map(jax.numpy.asarray, arrays)
    )
    tensors = [torch.from_numpy(x).requires_grad_() for x in arrays]
    (rf.clustered_attention(*tensors, num_clusters=3) ** 2).sum().backward()
    for mine, tensor in zip(found, tensors, strict=True):
        assert np.max(np.abs(np.asarray(mine) - tensor.grad.numpy())) < ROUNDING


@pytest.mark.parametrize("accuracy", [0.3, 0.1, 0.03])
def test_an_accuracy_is_kept_by_as_many_clusters_as_it_needs(xp, rng, accuracy):
    query, key, value = head(rng, 400, lead=(3,))
    found = to_numpy(rf.clustered_attention(*(asarray(xp, x) for x in (query, key, value)), accuracy=accuracy))
    exact = rf.softmax_attention(query, key, value)
    assert all(relative(mine, other) <= accuracy for mine, other in zip(found, exact, strict=True))


def test_the_accuracy_of_a_recorded_gradient_is_that_of_the_host(rng):
    torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")
    arrays = [torch.from_numpy(x) for x in head(rng, 400)]
    expected = rf.clustered_attention(*arrays, accuracy=0.1)
    arrays[0].requires_grad_()
    found = rf.clustered_attention(*arrays, accuracy=0.1).detach()
    assert np.max(np.abs(to_numpy(found - expected))) < ROUNDING


def test_a_hopeless_accuracy_is_exact_attention(xp, rng):
    query, key, value = (asarray(xp, x) for x in head(rng, 300))
    found = to_numpy(rf.clustered_attention(query, key, value, accuracy=1e-3))
    assert np.max(np.abs(found - to_numpy(rf.softmax_attention(query, key, value)))) < ROUNDING


def test_a_compiled_function_is_told_to_fit_before(rng):
    jax = pytest.importorskip("jax", reason="pip install '.[frameworks]'")
    arrays = [jax.numpy.asarray(x) for x in head(rng, 300)]
    with pytest.raises(TypeError, match="a fit needs numbers, but the arrays are traced"):
        jax.jit(rf.clustered_attention)(*arrays)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_clusters": 0}, ValueError, "num_clusters must be a positive integer"),
        ({"num_exact": 2.5}, TypeError, "num_exact must be a positive integer"),
        ({"clusters": 7}, TypeError, "clusters must be QueryClusters, got int"),
        ({"accuracy": 0}, ValueError, "accuracy must be positive and finite"),
        ({"accuracy": 0.1, "num_exact": 9}, ValueError, "accuracy chooses num_exact; give one of the two"),
        ({"second_order": "no"}, TypeError, "second_order must be True or False"),
        ({"query_mask": np.ones(149, bool)}, ValueError, r"query_mask must have shape \(150,\)"),
        ({"query_mask": np.ones(150)}, TypeError, "query_mask must be boolean"),
        ({"is_causal": True}, TypeError, "is_causal"),
    ],
    ids=["no clusters", "half a key", "no error", "two answers", "number", "word", "length", "floats", "causal"],
)
def test_bad_arguments(rng, options, error, message):
    with pytest.raises(error, match=message):
        rf.clustered_attention(*head(rng), **options)


@pytest.mark.usefixtures("never_exact")
def test_frozen_clusters_know_what_they_were_fitted_for(rng):
    query, key, value = head(rng)
    clusters = rf.QueryClusters.fit(query, key, num_clusters=6)
    for options, message in (
        ({"num_clusters": 7}, "fitted with num_clusters = 6, got 7"),
        ({"scale": 1.0}, "fitted with scale = 0.35"),
    ):
        with pytest.raises(ValueError, match=message):
            rf.clustered_attention(query, key, value, clusters=clusters, **options)
    with pytest.raises(ValueError, match=r"batch_shape \(\) and dimension 8, expected \(2,\)"):
        rf.clustered_attention(*(np.stack([x, x]) for x in (query, key, value)), clusters=clusters)
