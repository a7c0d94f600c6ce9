"""Dask arrays: features, moments and attention are those of NumPy however the data are cut, and whoever computes."""

import os
import signal
import time

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import eps_of, same_bits
from tests.cases import ATTENTION
from tests.reference import naive_attention, naive_features

INSTALL = "pip install '.[dask]'"
dask = pytest.importorskip("dask", reason=INSTALL)
da = pytest.importorskip("dask.array", reason=INSTALL)
from randfeat.integrations import dask as integration  # noqa: E402
from randfeat.integrations import dask_blocks  # noqa: E402

FIELDS = ("gram", "cross", "feature_sum", "target_sum", "target_gram")
CHUNKS = {"whole": 23, "even": 8, "uneven": (9, 1, 2, 11), "with an empty one": (9, 0, 14)}


@pytest.fixture(autouse=True)
def one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def trigonometric(dim=3, width=8, **options):
    return rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim, width, rng=0, **options)


def of_unknown_sizes(x):
    """The same array, with sizes of chunks along its rows that are not known."""
    x = x.copy()
    x._chunks = (*x.chunks[:-2], (np.nan,) * len(x.chunks[-2]), x.chunks[-1])
    return x


def unloaded(shape, chunks, dtype=float):
    """An array none of whose blocks may be computed."""

    def load(block):
        raise AssertionError("a block was computed")

    return da.zeros(shape, chunks=chunks, dtype=dtype).map_blocks(
        load, dtype=dtype, meta=np.empty((0,) * len(shape), dtype)
    )


# features ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("estimator", ATTENTION[:3], ids=repr)
def test_features_are_those_of_each_block(rng, estimator, cut):
    """To the last bit, and equal up to rounding to the naive features of all rows."""
    data = rng.standard_normal((23, 5)) / 2
    phi = estimator.draw(5, 8, rng=0)
    x = da.from_array(data, chunks=(cut, 5))
    z = integration.features(phi, x)
    assert (z.shape, z.chunks, z.dtype) == ((23, 8), (x.chunks[0], (8,)), data.dtype)
    computed = z.compute()
    assert same_bits(computed, np.concatenate([phi(block.compute()) for block in x.blocks]))
    naive = naive_features(phi, data)
    bound = naive.per_eps(5) * np.exp(naive.size) * eps_of("float64")
    assert np.max(bound) < 1e-11
    assert np.all(np.abs(computed - naive.sign * np.exp(naive.log)) <= bound)


def test_features_of_long_blocks(rng):
    """Blocks that take the fast way of `phi`, and blocks that do not."""
    phi, data = trigonometric(width=64), rng.standard_normal((2000, 3))
    z = integration.features(phi, da.from_array(data, chunks=((1500, 100, 400), 3)))
    expected = np.concatenate([phi(part) for part in np.split(data, (1500, 1600))])
    assert same_bits(z.compute(), expected)
    # |w·x| < 30, times dim + 8 rounding errors; amplitudes are 1/√32.
    assert np.max(np.abs(z.compute() - phi(data))) < 400 * eps_of("float64")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_dtypes_and_laziness(dtype):
    z = integration.features(trigonometric(), unloaded((40, 3), (10, 3), dtype))
    assert z.dtype == z._meta.dtype == trigonometric()(np.zeros((1, 3), dtype)).dtype
    assert (z.chunks, z.ndim, z._meta.ndim) == (((10,) * 4, (8,)), 2, 2)
    with pytest.raises(AssertionError, match="a block was computed"):
        z.compute()
    present = integration.features(trigonometric(), da.ones((40, 3), chunks=(10, 3), dtype=dtype)).compute()
    assert same_bits(present, trigonometric()(np.ones((40, 3), dtype)))


def test_an_input_dimension_in_chunks_is_made_whole(rng):
    data = rng.standard_normal((23, 3))
    z = integration.features(trigonometric(), da.from_array(data, chunks=(9, 2)))
    assert z.chunks == ((9, 9, 5), (8,))
    assert same_bits(z.compute(), np.concatenate([trigonometric()(part) for part in np.split(data, (9, 18))]))


def test_features_of_rows_that_are_counted_only_when_they_are_computed(rng):
    data = rng.standard_normal((23, 3))
    x = da.from_array(data, chunks=(9, 3))
    z = integration.features(trigonometric(), x[x[:, 0] > 0])
    assert np.isnan(z.shape[0])
    assert z.shape[1] == 8
    np.testing.assert_allclose(z.compute(), trigonometric()(data[data[:, 0] > 0]), atol=100 * eps_of("float64"))


@pytest.mark.parametrize(
    ("batch_shape", "lead"),
    [
        ((4,), (4,)),
        ((4,), (1,)),
        ((1,), (4,)),
        ((4,), ()),
        ((), (2, 4)),
        ((2, 1), (1, 4)),
        ((2, 4), (2, 4)),
        ((4,), (2, 4)),
    ],
)
def test_batches_of_maps_and_leading_dimensions_in_chunks(rng, batch_shape, lead):
    phi = trigonometric(batch_shape=batch_shape)
    data = rng.standard_normal((*lead, 11, 3))
    whole = tuple(np.broadcast_shapes(batch_shape, lead))
    for cut in (1, 3):
        x = da.from_array(data, chunks=(*(min(cut, size) for size in lead), 4, 3))
        z = integration.features(phi, x)
        assert z.shape == (*whole, 11, 8)
        assert z.chunks[-2] == (4, 4, 3)
        np.testing.assert_allclose(z.compute(), phi(data), atol=100 * eps_of("float64"))
        assert z.compute().shape == z.shape
        assert sum(map(sum, z.chunks)) == sum(z.shape)


def test_the_map_is_in_the_graph_once():
    """Not in every task, where it would be sent along each time."""
    graph = integration.features(trigonometric(), da.ones((40, 3), chunks=(4, 3))).__dask_graph__()
    assert sum(key.startswith("feature-map") for key in graph if isinstance(key, str)) == 1
    assert "FeatureMap" not in "".join(
        repr(task) for key, task in graph.items() if not str(key).startswith("feature-map")
    )


def test_the_same_computation_has_the_same_name():
    x = da.ones((40, 3), chunks=(4, 3))
    names = [integration.features(phi, x).name for phi in (trigonometric(), trigonometric(), trigonometric(width=16))]
    other = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(3, 8, rng=1)
    assert names[0] == names[1]
    assert len({*names, integration.features(other, x).name}) == 3


def test_dask_knows_how_large_things_are():
    """Or it would not keep workers within their memory."""
    moments = rf.FeatureMoments.empty(trigonometric(), 2)
    state = rf.AttentionState.empty(8, 3, like=np.zeros(1))
    assert dask.sizeof.sizeof(trigonometric()) == 8 * 4 * 3
    assert dask.sizeof.sizeof(moments) == 8 * (8 * 8 + 8 * 2 + 8 + 2 + 2 * 2 + 2)
    assert dask.sizeof.sizeof(state) == 8 * (1 + 8 * 3 + 8)


# moments -------------------------------------------------------------------------------------------------------------


def check_moments(moments, phi, x, y, dtype="float64"):
    """Each sum of n terms is within (n + 8) eps of the sum of their sizes; 8 for the features themselves."""
    z = phi(x).astype(np.float64)
    t = np.zeros((len(x), 0)) if y is None else y.reshape(len(x), -1)

    def sums(z, t):
        zt = np.swapaxes(z, -1, -2)
        return zt @ z, zt @ t, z.sum(-2), t.sum(0), t.T @ t

    assert moments.count == len(x)
    for name, expected, size in zip(FIELDS, sums(z, t), sums(np.abs(z), np.abs(t)), strict=True):
        actual = getattr(moments, name)
        assert actual.shape == expected.shape, name
        assert np.all(np.abs(actual - expected) <= (len(x) + 8) * eps_of(dtype) * size), name
    assert same_bits(moments.gram, np.swapaxes(moments.gram, -1, -2))


@pytest.mark.parametrize("targets", [None, (), (2,)], ids=["no targets", "one target", "two targets"])
@pytest.mark.parametrize("cut", CHUNKS.values(), ids=CHUNKS)
def test_moments(rng, cut, targets):
    phi, data = trigonometric(), rng.standard_normal((23, 3))
    y = None if targets is None else rng.standard_normal((23, *targets))
    x = da.from_array(data, chunks=(cut, 3))
    for others in (cut, 5):  # targets are cut as the rows, or differently
        t = None if y is None else da.from_array(y, chunks=(others, *(1 for _ in targets)))
        for split_every in (2, 8):
            moments = integration.feature_moments(phi, x, t, split_every=split_every).compute()
            assert isinstance(moments, rf.FeatureMoments)
            check_moments(moments, phi, data, y)


@pytest.mark.parametrize("batch_shape", [(), (2,)])
@pytest.mark.parametrize("dtype", ["float32", None])
def test_moments_of_batches_and_dtypes(rng, batch_shape, dtype):
    phi = trigonometric(batch_shape=batch_shape)
    data, y = rng.standard_normal((23, 3)), rng.standard_normal((23, 2))
    x, t = (da.from_array(part, chunks=(6, -1)) for part in (data, y))
    moments = integration.feature_moments(phi, x, t, dtype=dtype).compute()
    assert moments.gram.dtype == (dtype or "float64")
    check_moments(moments, phi, data, y, dtype or "float64")


def test_moments_of_single_precision_data_are_double_unless_asked(rng):
    phi = trigonometric(like=np.zeros(1, "float32"))
    data = rng.standard_normal((23, 3)).astype("float32")
    moments = integration.feature_moments(phi, da.from_array(data, chunks=(6, 3))).compute()
    assert moments.gram.dtype == "float64"
    check_moments(moments, phi, data, None)  # of the float32 features, which here do not depend on the chunks


def test_moments_of_unknown_sizes(rng):
    phi, data = trigonometric(), rng.standard_normal((23, 3))
    x = da.from_array(data, chunks=(6, 3))
    keep = x[:, 0] > 0
    x, y = x[keep], x[keep, 1]
    kept = data[data[:, 0] > 0]
    moments = integration.feature_moments(phi, x, y)
    check_moments(moments.compute(), phi, kept, kept[:, 1])
    with pytest.raises(ValueError, match=r"equally many chunks along their length .* got 4 and 2"):
        integration.feature_moments(phi, x, da.ones(23, chunks=20))
    with pytest.raises(ValueError, match="one row of targets for each row of x"):
        integration.feature_moments(phi, x, da.ones(23, chunks=6)).compute()


def test_ridge_regression_is_solving_with_moments(rng):
    data = rng.standard_normal((300, 3))
    x, y = da.from_array(data, chunks=(70, 3)), np.sin(data @ [1.0, 2.0, 0.5])
    phi = trigonometric(width=32)
    moments = integration.feature_moments(phi, x, da.from_array(y, chunks=70)).compute()
    weights = np.linalg.solve(moments.gram + 0.1 * np.eye(32), moments.cross)[:, 0]
    z = phi(data)
    expected = np.linalg.lstsq(np.vstack([z, np.sqrt(0.1) * np.eye(32)]), np.append(y, np.zeros(32)))[0]
    # Sums are off by 308 eps of at most 300, twice; the matrix is at least 0.1: (308 · 600 / 0.1) eps.
    np.testing.assert_allclose(weights, expected, atol=2e6 * eps_of("float64"))
    predicted = integration.features(phi, x) @ weights  # a dask array again
    np.testing.assert_allclose(predicted.compute(), z @ expected, atol=1e7 * eps_of("float64"))


# attention -----------------------------------------------------------------------------------------------------------

# name: (leading dimensions of query, key, value, mask or None, batch_shape)
LEADING = {
    "one head": ((), (), (), None, ()),
    "mask": ((), (), (), (), ()),
    "batch, heads": ((2, 3), (2, 3), (2, 3), (2, 1), (3,)),
    "shared keys": ((3,), (1,), (), (), ()),
    "shared queries": ((), (3,), (3,), None, ()),
    "heads of maps only": ((), (), (), None, (3,)),
    "values only": ((1,), (1,), (3,), (1,), (1,)),
    "everything broadcasts": ((3,), (2, 1), (1, 3), (1, 1), (2, 1)),
}
LENGTHS = {"equal": (12, (5, 1, 6), (5, 1, 6)), "different": (12, (7, 5), 4), "with an empty one": (12, (5, 0, 7), 12)}


def attention_problem(rng, leading, lengths, estimator, cut=1):
    """Arrays, their dask versions with leading dimensions in pieces of `cut`, and the map."""
    *leads, mask_lead, batch_shape = LEADING[leading]
    size, of_queries, of_keys = LENGTHS[lengths]
    arrays, lazy = [], []
    for lead, dim, chunks in zip(leads, (5, 5, 3), (of_queries, of_keys, of_keys), strict=True):
        arrays.append(rng.standard_normal((*lead, size, dim)))
        lazy.append(da.from_array(arrays[-1], chunks=(*(cut,) * len(lead), chunks, 2)))
    mask = None if mask_lead is None else rng.random((*mask_lead, size)) < 0.7
    return arrays, lazy, mask, estimator.draw(5, 8, rng=0, batch_shape=batch_shape)


@pytest.mark.parametrize(
    ("leading", "lengths"),
    [*((leading, "different") for leading in LEADING), ("mask", "equal"), ("mask", "with an empty one")],
)
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_attention_is_that_of_the_naive_twin(rng, leading, lengths, is_causal):
    estimator = ATTENTION[len(leading) % 2]
    arrays, (q, k, v), mask, phi = attention_problem(rng, leading, lengths, estimator)
    expected = naive_attention(phi, *arrays, is_causal=is_causal, key_mask=mask)
    assert expected.output.shape == rf.linear_attention(*arrays, phi, key_mask=mask).shape
    key_mask = None if mask is None else da.from_array(mask, chunks=(*(1,) * (mask.ndim - 1), 5))
    out = integration.linear_attention(q, k, v, phi, is_causal=is_causal, key_mask=key_mask, split_every=2)
    assert out.chunks[-2] == q.chunks[-2]
    assert (out.shape, out.dtype) == (expected.output.shape, np.float64)
    expected.check(out.compute(), eps_of("float64"), most=1e-11)
    for at in np.ndindex(*out.numblocks):  # blocks have the sizes that are promised
        assert out.blocks[at].compute().shape == out.blocks[at].shape


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("estimator", ATTENTION, ids=repr)
def test_attention_with_every_kind_of_features(rng, estimator, is_causal):
    arrays, (q, k, v), mask, phi = attention_problem(rng, "batch, heads", "different", estimator, cut=2)
    expected = naive_attention(phi, *arrays, is_causal=is_causal, key_mask=mask, scale=0.3)
    out = integration.linear_attention(q, k, v, phi, is_causal=is_causal, key_mask=mask, scale=0.3)
    expected.check(out.compute(), eps_of("float64"), most=1e-11 if estimator.positive else 1e-6)


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_attention_over_long_blocks(rng, dtype, is_causal):
    """Blocks for which NumPy has a faster pass, of keys far apart in size: the state is rescaled at every merger."""
    q, k = rng.standard_normal((2, 2, 200, 5))
    k *= np.linspace(0.2, 4.0, 200)[:, None]
    arrays = [x.astype(dtype) for x in (q, k, rng.standard_normal((2, 200, 3)))]
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=arrays[0], batch_shape=(2,))
    expected = naive_attention(phi, *arrays, is_causal=is_causal)
    lazy = (da.from_array(x, chunks=(1, (70, 100, 30), -1)) for x in arrays)
    out = integration.linear_attention(*lazy, phi, is_causal=is_causal, split_every=2)
    assert out.dtype == dtype
    expected.check(out.compute(), eps_of(dtype), output_eps=eps_of(dtype), most=1e3 * eps_of(dtype) / eps_of("float32"))


def test_half_precision(rng):
    arrays = [x.astype(np.float16) for x in rng.standard_normal((3, 12, 5))]
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    lazy = [da.from_array(x, chunks=(5, 5)) for x in arrays]
    out = integration.linear_attention(*lazy, phi, is_causal=True)
    assert out.dtype == out.compute().dtype == np.float16
    expected = naive_attention(phi, *arrays, is_causal=True)
    expected.check(out.compute(), eps_of("float32"), output_eps=eps_of("float16"), most=1e-2)


def test_attention_of_unknown_sizes(rng):
    arrays, lazy, mask, phi = attention_problem(rng, "mask", "equal", ATTENTION[0])
    q, k, v = (of_unknown_sizes(x) for x in lazy)
    present = da.from_array(mask, chunks=((5, 1, 6),))
    for is_causal in (False, True):
        expected = naive_attention(phi, *arrays, is_causal=is_causal, key_mask=mask)
        for given in ((q, k, v), (lazy[0], k, lazy[2])):
            out = integration.linear_attention(*given, phi, is_causal=is_causal, key_mask=present)
            expected.check(out.compute(), eps_of("float64"), most=1e-11)
    heads = [x[None].repeat(2, axis=0).rechunk({0: c}) for x, c in zip((q, k, v), (1, 2, 1), strict=True)]
    out = integration.linear_attention(*heads, phi, key_mask=present, is_causal=True)
    assert out.chunks[0] == (1, 1)
    expected.check(out[1].compute(), eps_of("float64"), most=1e-11)
    with pytest.raises(ValueError, match=r"key and value must have equally many chunks .* got 3 and 2"):
        integration.linear_attention(q, k, da.ones((12, 3), chunks=(6, 3)), phi)
    other = da.ones((12, 5), chunks=((4, 2, 6), 5))
    with pytest.raises(ValueError, match="chunks of queries and keys of the same lengths, got"):
        integration.linear_attention(other, k, v, phi, is_causal=True).compute()


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_everything_masked_or_no_keys_gives_zeros(rng, is_causal):
    q, k, v = (da.from_array(x, chunks=(5, -1)) for x in rng.standard_normal((3, 12, 5)))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    mask = np.arange(12) >= 7  # all of the first block, and then some
    out = integration.linear_attention(q, k, v, phi, is_causal=is_causal, key_mask=mask).compute()
    arrays = (x.compute() for x in (q, k, v))
    naive_attention(phi, *arrays, is_causal=is_causal, key_mask=mask).check(out, eps_of("float64"))
    nothing = integration.linear_attention(q, k, v, phi, is_causal=is_causal, key_mask=np.zeros(12, bool)).compute()
    assert np.all(nothing == 0.0)
    if not is_causal:
        assert np.all(integration.linear_attention(q, k[:0], v[:0], phi).compute() == 0.0)


def test_causal_outputs_depend_on_no_later_key(rng):
    arrays, _, _, phi = attention_problem(rng, "batch, heads", "equal", ATTENTION[0])
    q, k, v = arrays
    later = k.copy()
    later[..., 7:, :] = np.nan
    first, second = (
        integration.linear_attention(
            *(da.from_array(x, chunks=(*x.shape[:-2], 5, -1)) for x in (q, keys, v)), phi, is_causal=True
        ).compute()
        for keys in (k, later)
    )
    assert same_bits(first[..., :7, :], second[..., :7, :])
    assert np.all(np.isnan(second[..., 7:, :]))


def test_attention_is_lazy():
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    x = unloaded((40, 5), (10, 5))
    for is_causal in (False, True):
        out = integration.linear_attention(x, x, x, phi, is_causal=is_causal, key_mask=np.ones(40, bool))
        assert (out.chunks, out.dtype, out._meta.ndim) == (((10,) * 4, (5,)), np.float64, 2)
        with pytest.raises(AssertionError, match="a block was computed"):
            out.compute()
    with pytest.raises(AssertionError, match="a block was computed"):
        integration.feature_moments(phi, x).compute()


def test_a_state_in_the_wrong_place_is_seen(rng, monkeypatch):
    """A chain that gives each block the state after it, and one that forgets a block: the comparison fails."""
    arrays, (q, k, v), _, phi = attention_problem(rng, "one head", "equal", ATTENTION[0])
    expected = naive_attention(phi, *arrays, is_causal=True)

    def inclusive(parts, merge):
        return parts

    def forgetful(parts, merge):
        return dask_blocks.chained(parts, lambda states: merge(states[1:]))

    for mistake in (inclusive, forgetful):
        monkeypatch.setattr(integration, "chained", mistake)
        with pytest.raises(AssertionError, match="times the bound"):
            expected.check(integration.linear_attention(q, k, v, phi, is_causal=True).compute(), eps_of("float64"))


# refusals ------------------------------------------------------------------------------------------------------------


def refusals():
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    f, moments, attention = integration.features, integration.feature_moments, integration.linear_attention
    x, y = da.ones((12, 5), chunks=4), da.ones(12, chunks=4)
    masked = da.ma.masked_greater(x, 0)
    unknown = x[:, x[0] > 0]
    asymmetric = rf.GeneralizedExponentialFeatures(parameter=0.04j).draw(5, 8, rng=0)
    scaled = rf.PositiveFeatures(rf.SoftmaxKernel(scale=2.0)).draw(5, 8, rng=0)
    return [
        (lambda: f(phi, np.ones((12, 5))), TypeError, r"x must be a dask array, got ndarray; dask.array.from_array"),
        (lambda: f(phi, y), ValueError, r"x must have shape \(..., n, dim\), got \(12,\); one vector is x\[None, :\]"),
        (lambda: f(phi, x[:, :4]), ValueError, "x has dimension 4, but the features were drawn for 5"),
        (lambda: f(phi, x.astype(complex)), TypeError, "x must be real floating point"),
        (lambda: f(phi, masked), TypeError, "x is a masked array"),
        (lambda: f(phi, unknown), ValueError, r"no other unknown sizes, .* x.compute_chunk_sizes\(\) finds them"),
        (lambda: f(rf.PositiveFeatures(), x), TypeError, "must be a FeatureMap, from estimator.draw"),
        (lambda: f(asymmetric, x), TypeError, "different query and key features"),
        (lambda: f(trigonometric(5, batch_shape=(3,)), da.ones((2, 12, 5))), ValueError, "do not broadcast against"),
        (lambda: moments(phi, da.ones((2, 12, 5))), ValueError, r"x must have shape \(n, 5\), got \(2, 12, 5\)"),
        (lambda: moments(phi, x, np.ones(12)), TypeError, "y must be a dask array, got ndarray"),
        (lambda: moments(phi, x, y[:11]), ValueError, "x and y must have the same length, got 12 and 11"),
        (lambda: moments(phi, x, x[None]), ValueError, r"y must have shape \(n, k\)"),
        (lambda: moments(phi, x, dtype="float16"), ValueError, 'dtype must be "float32", "float64" or None'),
        (lambda: moments(phi, x, split_every=1), ValueError, "split_every must be an integer, 2 or more, got 1"),
        (lambda: moments(asymmetric, x), TypeError, "different query and key features"),
        (lambda: attention(x, x, np.ones((12, 5)), phi), TypeError, "value must be a dask array"),
        (lambda: attention(x, x, x.astype("float32"), phi), TypeError, "one dtype, got float64, float64, float32"),
        (lambda: attention(x, x, x[:11], phi), ValueError, "key and value must have the same length"),
        (lambda: attention(x[:11], x, x, phi, is_causal=True), ValueError, "causal attention must have .* 11 and 12"),
        (lambda: attention(x[:, :4], x[:, :4], x, phi), ValueError, "dimension 4, but the features were drawn for 5"),
        (lambda: attention(x, x, x, scaled), ValueError, "scale"),
        (lambda: attention(x, x, x, phi, key_mask=y), TypeError, "key_mask must be boolean"),
        (lambda: attention(x, x, x, phi, key_mask=y[:11] > 0), ValueError, r"key_mask must have shape \(12,\)"),
        (lambda: attention(x, x, x, phi, key_mask=x[:, :1] > 0), ValueError, "key_mask must have shape"),
        (lambda: attention(x, x, x, phi, key_mask=True), ValueError, r"key_mask must have shape \(S,\)"),
        (lambda: attention(x, x, x, phi, decay=0.9, window=3), TypeError, "decay, window: attention of dask arrays"),
        (lambda: attention(x, x, x, rf.PositiveFeatures()), TypeError, "must be a FeatureMap"),
    ]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), refusals())
def test_refusals(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_maps_of_other_libraries_are_refused():
    strict = pytest.importorskip("array_api_strict", reason="pip install '.[test]'")
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=strict.zeros(1))
    with pytest.raises(TypeError, match=r"must hold NumPy arrays, as the blocks do: phi.to\(numpy.empty\(0\)\)"):
        integration.features(phi, da.ones((12, 5)))


# workers -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client():
    """Of a scheduler on this machine with three worker processes.

    One that asks a killed worker for data waits for the time limit of connections, 30 s by default. Port 0 is any free
    one: without an address a scheduler listens on 8787, where that of another process of the suite may be.
    """
    distributed = pytest.importorskip("distributed", reason=f"needs a scheduler: {INSTALL}")
    options = {"n_workers": 3, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    options |= {"worker_dashboard_address": None, "silence_logs": "CRITICAL"}
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "3s"}),
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster, set_as_default=False) as found,
    ):
        yield found


def everything(rng):
    """Lazy results of all kinds of one source in 12 blocks, and a check of what they are computed to.

    The map is another one each time: a key of the graph that was tied to some workers might still be known to be.
    """
    data = rng.standard_normal((60, 5)) / 2
    phi = rf.PositiveFeatures().draw(5, 8, rng=rng)
    outputs = [naive_attention(phi, data, data, data, is_causal=is_causal, merges=40) for is_causal in (False, True)]

    def lazy(folder, hold=0):
        def noted(block):
            """The block, after a note of who loads it. After `hold` notes all wait for a file "go".

            A local function, so that workers need not import the tests.
            """
            (folder / f"{time.time_ns()}-{os.getpid()}").touch()
            time.sleep(0.01)
            while hold and len(list(folder.iterdir())) >= hold and not (folder.parent / "go").exists():
                time.sleep(0.005)
            return block

        x = da.from_array(data, chunks=(5, 5)).map_blocks(noted, dtype=data.dtype, meta=data[:0])
        moments = integration.feature_moments(phi, x, x[:, 0], split_every=3)
        attention = [integration.linear_attention(x, x, x, phi, is_causal=c, split_every=3) for c in (False, True)]
        return [integration.features(phi, x), moments, *attention]

    def check(features, moments, *attention):
        np.testing.assert_allclose(features, phi(data), rtol=1e3 * eps_of("float64"))
        check_moments(moments, phi, data, data[:, 0])
        for output, expected in zip(attention, outputs, strict=True):
            expected.check(output, eps_of("float64"), most=1e-10)

    return lazy, check


def test_one_two_or_three_workers_give_the_numbers_of_numpy(client, rng, tmp_path):
    client.wait_for_workers(3, timeout=60)
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    assert len(addresses) == 3
    lazy, check = everything(rng)
    for number in (1, 2, 3):
        folder = tmp_path / str(number)
        folder.mkdir()
        options = {"workers": addresses[:number], "allow_other_workers": False}
        futures = [client.compute(one, **options) for one in lazy(folder)]
        check(*client.gather(futures))
        assert len({path.name.split("-")[1] for path in folder.iterdir()}) == number
        assert len(list(folder.iterdir())) >= 12
        del futures  # and with them what the scheduler knows of their keys


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_worker_that_is_killed_half_way_loses_nothing(client, rng, tmp_path):
    lazy, check = everything(rng)
    folder = tmp_path / "notes"
    folder.mkdir()
    futures = [client.compute(one) for one in lazy(folder, hold=5)]
    deadline = time.monotonic() + 60
    while len(notes := sorted(path.name for path in folder.iterdir())) < 5:
        assert time.monotonic() < deadline, "nothing is computed"
        time.sleep(0.005)
    killed = notes[0].split("-")[1]
    os.kill(int(killed), signal.SIGKILL)
    (tmp_path / "go").touch()
    check(*client.gather(futures))
    loaded = [path.name.split("-")[1] for path in folder.iterdir()]
    assert len(notes) < 12 <= len(loaded)
    assert 0 < loaded.count(killed) < 12
