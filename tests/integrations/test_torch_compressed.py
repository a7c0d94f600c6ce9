"""Compressed attention in PyTorch: modules, the SDPA replacement, and one operator in compiled graphs."""

import copy
import pickle

import pytest

import randfeat as rf
from tests.arrays import same_bits
from tests.compressed.heads import head

torch = pytest.importorskip("torch", reason="pip install '.[torch]'")
from randfeat.integrations.torch import (  # noqa: E402
    CachedAttention,
    CompressedAttention,
    LinearAttention,
    scaled_dot_product_attention,
)

MASK = torch.arange(90) < torch.tensor([[90], [61]])
OPTIONS = {
    "clustered": {"num_clusters": 4},
    "compressed": {"num_keys": 12},
    "causal": {"num_keys": 12, "window": 8, "is_causal": True},
}
FUNCTIONS = {name: rf.clustered_attention if name == "clustered" else rf.compressed_attention for name in OPTIONS}
EVERY = pytest.mark.parametrize("name", OPTIONS)


def inputs(rng, length=90, dtype=torch.float32, lead=(2, 3)):
    return [torch.from_numpy(x).to(dtype) for x in head(rng, length, lead=lead)]


def module(name, **options):
    return CompressedAttention("clustered" if name == "clustered" else "compressed", **OPTIONS[name], **options)


@EVERY
def test_module_and_function_are_the_function_of_the_method(rng, name):
    """To the bit, with masks, grouped heads, layouts and half precision."""
    arrays = inputs(rng)
    attention = module(name)
    expected = FUNCTIONS[name](*arrays, **OPTIONS[name], key_mask=MASK[:, None])
    assert same_bits(attention(*arrays, key_mask=MASK[:, None]), expected)
    found = scaled_dot_product_attention(*arrays, MASK[:, None, None], method=attention.method, **OPTIONS[name])
    assert same_bits(found, expected)
    assert not same_bits(attention(*arrays), expected)
    query, key, value = arrays[0], *(x[:, :1] for x in arrays[1:])
    grouped = FUNCTIONS[name](query, key, value, **OPTIONS[name], enable_gqa=True, scale=0.2)
    assert same_bits(attention(query, key, value, enable_gqa=True, scale=0.2), grouped)
    found = scaled_dot_product_attention(
        query, key, value, enable_gqa=True, scale=0.2, method=attention.method, **OPTIONS[name]
    )
    assert same_bits(found, grouped)
    half = [x.bfloat16() for x in arrays]
    assert same_bits(attention.half()(*half), FUNCTIONS[name](*half, **OPTIONS[name]))
    with torch.autocast("cpu", torch.bfloat16):
        assert same_bits(attention(*arrays), FUNCTIONS[name](*arrays, **OPTIONS[name]))
    assert attention.state_dict() == {}
    assert list(attention.parameters()) == []
    for twin in (copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        assert same_bits(twin(*arrays), attention(*arrays))
    assert all(f"{option}={number}" in repr(attention) for option, number in OPTIONS[name].items())


def test_states_pass_through_the_module(rng):
    arrays = inputs(rng)
    attention = module("causal")
    first, state = attention(*(x[..., :50, :] for x in arrays), return_state=True)
    rest = attention(*(x[..., 50:, :] for x in arrays), initial_state=state)
    torch.testing.assert_close(torch.cat([first, rest], dim=-2), attention(*arrays))
    exact = torch.nn.functional.scaled_dot_product_attention(*arrays, is_causal=True)
    assert torch.linalg.norm(attention(*arrays) - exact) < 0.5 * torch.linalg.norm(exact)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"method": "clustered", "is_causal": True},
            ValueError,
            r'fitted to a sequence have seen all of it; method="c',
        ),
        ({"method": "clustered", "num_keys": 3}, TypeError, "got num_keys, expected keywords of clustered_attention"),
        ({"method": "compressed", "num_clusters": 3}, TypeError, "got num_clusters, expected keywords of compressed_"),
        ({"method": "compressed", "decay": 0.5}, TypeError, "got decay, expected keywords of compressed_attention"),
        ({"method": "clustered", "dropout_p": 0.1}, ValueError, "dropout_p must be 0, got 0.1"),
        ({"method": "clustered", "attn_mask": torch.zeros(2, 1, 1, 90)}, TypeError, "attn_mask must be boolean with"),
        ({"method": "clustered", "attn_mask": torch.ones(90, 90) > 0}, ValueError, "pairs of queries and keys"),
        ({"method": "clustered", "features": 3}, ValueError, 'method="clustered" has no features'),
        ({"method": "exact"}, TypeError, "features is missing: a FeatureMap or a LinearAttention, or None with "),
        ({"method": "compress"}, TypeError, "got method='compress'"),
        ({}, TypeError, r'features is missing: a FeatureMap .*, or None with method="clustered" or "compressed"\.$'),
    ],
)
def test_what_does_not_fit_together_is_refused(rng, given, error, message):
    with pytest.raises(error, match=message):
        scaled_dot_product_attention(*inputs(rng), **given)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"method": "linear"}, ValueError, 'method must be "clustered" or "compressed", got \'linear\''),
        ({"key_mask": MASK}, ValueError, "key_mask cannot be given to CompressedAttention: they belong to one call"),
        ({"num_cluster": 3}, TypeError, "got num_cluster, expected keywords of clustered_attention.*num_clusters"),
        ({"clusters": 3}, TypeError, "clusters must be QueryClusters, got int"),
        ({"method": "compressed", "clusters": 3}, ValueError, 'clusters need method="clustered"'),
    ],
)
def test_modules_that_cannot_be_are_refused_at_once(given, error, message):
    with pytest.raises(error, match=message):
        CompressedAttention(**given)
    with pytest.raises(TypeError, match="cache must be a KeyCache, got int"):
        CachedAttention(3)


def test_frozen_clusters_are_buffers(rng, tmp_path):
    """Saved, moved and copied; in float32 also in a model of half precision."""
    arrays = inputs(rng, lead=(3,))
    clusters, others = (rf.QueryClusters.fit(*arrays[:2], num_clusters=4, rng=seed) for seed in (0, 1))
    attention = CompressedAttention(clusters=clusters)
    expected = rf.clustered_attention(*arrays, clusters=clusters)
    assert same_bits(attention(*arrays), expected)
    other = CompressedAttention(clusters=others)
    assert not same_bits(other(*arrays), expected)
    torch.save(attention.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    halved = copy.deepcopy(attention).half()
    assert {x.dtype for x in halved.buffers()} == {torch.float32}
    for twin in (other, halved, copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        assert same_bits(twin(*arrays), expected)
    assert {str(x.device) for x in attention.to("meta").buffers()} == {"meta"}
    assert "clusters=QueryClusters(num_clusters=4, dim=8, batch_shape=(3,))" in repr(other)


@pytest.fixture(params=["one set of rows", "a route"])
def cache(request, rng):
    query, key, value = inputs(rng, lead=(3,))
    if request.param == "a route":
        return rf.QueryClusters.fit(query, key, num_clusters=4).compress(key, value)
    return rf.compress(key, value, num_keys=12, queries=query)


def test_caches_are_buffers(rng, cache, tmp_path):
    query = torch.randn(2, 3, 40, 8)
    attention = CachedAttention(cache)
    expected = cache.read(query).normalized()
    assert same_bits(attention(query), expected)
    names = {"keys", "bias", "values"} | ({"route"} if cache.route is not None else set())
    assert set(attention.state_dict()) == names
    torch.save(attention.state_dict(), tmp_path / "state.pt")
    other = CachedAttention(cache)
    other.values.zero_()
    assert not same_bits(other(query), expected)
    assert same_bits(attention(query), expected)  # the buffers are its own
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    for twin in (other, copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        assert same_bits(twin(query), expected)
    halved = attention.to(torch.bfloat16)
    kinds = {name: torch.bfloat16 if name in ("keys", "values") else torch.float32 for name in names}
    assert {name: x.dtype for name, x in halved.state_dict().items()} == kinds
    out, half = halved(query.bfloat16()), halved.cache
    assert out.dtype == torch.bfloat16
    rounded = rf.KeyCache(half.keys.float(), half.bias, half.values.float(), half.route)
    exact = rounded.read(query.bfloat16().float()).normalized()  # of the rounded inputs, which may take another route
    assert torch.all((out - exact).abs() <= 2**-8 * exact.abs() + 1e-5)  # bfloat16 has 8 digits; sums are in float32
    grouped = CachedAttention(cache, enable_gqa=True)
    many = torch.randn(2, 6, 40, 8)
    assert same_bits(grouped(many), cache.read(many, enable_gqa=True).normalized())
    arrays = (None if x is None else x.numpy() for x in (cache.keys, cache.bias, cache.values, cache.route))
    numpy_cache = rf.KeyCache(*arrays)
    assert same_bits(CachedAttention(numpy_cache)(query), expected)


SIZES = (2, 30), (3, 70), (2, 130)  # batch and length


@pytest.fixture(params=["eager"])
def graphs(request):
    """A backend that counts the graphs it is given."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    yield CompileCounterWithBackend(request.param)
    torch._dynamo.reset()


@EVERY
@pytest.mark.parametrize("graphs", ["aot_eager"], indirect=True, ids=["with its gradient"])
@pytest.mark.parametrize("dynamic", [None, True], ids=["second sizes open", "dynamic"])
def test_one_graph_serves_all_lengths_and_batches(graphs, rng, name, dynamic):
    """Outputs and gradients are those of the module itself; no graph breaks."""
    attention = module(name)
    compiled = torch.compile(attention, fullgraph=True, dynamic=dynamic, backend=graphs)
    for batch, length in SIZES:
        arrays = [x.requires_grad_() for x in inputs(rng, length, torch.float64, (batch, 3))]
        results = [function(*arrays) for function in (compiled, attention)]
        gradient = torch.randn_like(results[0])
        torch.testing.assert_close(*results)
        torch.testing.assert_close(*(torch.autograd.grad(result, arrays, gradient) for result in results))
    assert graphs.frame_count == (1 if dynamic else 2)


def test_masks_groups_clusters_and_autocast_are_compiled(graphs, rng):
    query, key, value = inputs(rng)
    key, value = key[:, :1], value[:, :1]
    clusters = rf.QueryClusters.fit(query, key, num_clusters=4, enable_gqa=True)
    attention = CompressedAttention(clusters=clusters, enable_gqa=True)

    def attend(query, key, value, mask):
        return attention(query, key, value, key_mask=mask), scaled_dot_product_attention(
            query, key, value, mask[..., None, :], method="compressed", num_keys=9, enable_gqa=True
        )

    compiled = torch.compile(attend, fullgraph=True, backend=graphs)
    for mask in (MASK[:, None], ~MASK[:, None].roll(40)):
        torch.testing.assert_close(compiled(query, key, value, mask), attend(query, key, value, mask))
    assert graphs.frame_count == 1
    mixed = query, key.bfloat16(), value
    with torch.autocast("cpu", torch.bfloat16):
        results = compiled(*mixed, MASK[:, None]), attend(*mixed, MASK[:, None])
    assert {x.dtype for result in results for x in result} == {torch.bfloat16}
    torch.testing.assert_close(*results)


def test_states_break_the_graph_and_nothing_else(graphs, rng):
    arrays = inputs(rng)
    attention = module("causal")

    def attend(*arrays):
        output, state = attention(*(2 * x for x in arrays), return_state=True)
        return 2 * output, state

    expected, state = attend(*arrays)
    found, after = torch.compile(attend, backend=graphs)(*arrays)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(after.merged.keys, state.merged.keys)
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"torch\.compiler\.disable"):
        torch.compile(attend, fullgraph=True, backend=graphs)(*arrays)


def test_caches_are_compiled(graphs, cache):
    """One graph for all lengths, without blocks."""
    attention = CachedAttention(cache)
    compiled = torch.compile(attention, fullgraph=True, dynamic=True, backend=graphs)
    for length in (40, 130, 1100):
        query = torch.randn(2, 3, length, 8)
        torch.testing.assert_close(compiled(query), attention(query))
    assert graphs.frame_count == 1


@pytest.mark.parametrize("method", ["clustered", "compressed"])
def test_the_operators_keep_the_rules_of_pytorch(rng, method):
    from randfeat.integrations.torch_compressed_operator import DEFAULTS, OPERATORS, TYPES

    query, key, value = (x.requires_grad_() for x in inputs(rng, 40))
    options = {"num_clusters": 3, "num_keys": 9, "layout": "blhd", "enable_gqa": True}
    swapped = {"query": query.transpose(1, 2), "key": key[:, :1].transpose(1, 2), "value": value[:, :1].transpose(1, 2)}
    given = DEFAULTS | options | {name: x.detach().requires_grad_() for name, x in swapped.items()}
    torch.library.opcheck(OPERATORS[method], [given.get(name) for name in TYPES[method]])


def test_exported_programs_are_saved_and_run_at_other_lengths(rng, tmp_path):
    attention = module("clustered")
    length = {2: torch.export.Dim("length", min=2)}
    program = torch.export.export(attention, tuple(inputs(rng)), dynamic_shapes=[length] * 3)
    torch.export.save(program, tmp_path / "attention.pt2")
    longer = inputs(rng, 130)
    assert same_bits(torch.export.load(tmp_path / "attention.pt2").module()(*longer), attention(*longer))


@EVERY
def test_functional_derivatives_hold_the_fit_constant(rng, name):
    """`torch.func.grad` sees the numbers that a fit needs; under `vmap` there are none."""
    arrays = inputs(rng, dtype=torch.float64, lead=(3,))
    attention = module(name)
    leaves = [x.clone().requires_grad_() for x in arrays]
    attention(*leaves).square().sum().backward()
    found = torch.func.grad(lambda *x: attention(*x).square().sum(), argnums=(0, 1, 2))(*arrays)
    torch.testing.assert_close(found, tuple(x.grad for x in leaves))
    for mapped in (torch.func.vmap(attention), torch.func.grad(lambda *x: torch.func.vmap(attention)(*x).sum())):
        with pytest.raises(TypeError, match="a fit needs numbers"):
            mapped(*arrays)


def test_features_still_need_no_method(rng):
    arrays = inputs(rng)
    linear = LinearAttention(rf.PositiveFeatures(), 8, 16)
    assert same_bits(scaled_dot_product_attention(*arrays, features=linear), linear(*arrays))
