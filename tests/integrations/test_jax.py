"""The JAX function: the meaning of jax.nn.dot_product_attention, under jit, grad and vmap."""

import functools
import inspect
import os
import subprocess
import sys

import numpy as np
import pytest

import randfeat as rf
from tests.arrays import same_bits
from tests.conftest import load_backend

pytest.importorskip("jax", reason="pip install '.[jax]'")
load_backend("jax.numpy")
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from randfeat.integrations.jax import attention_fn, dot_product_attention  # noqa: E402

LENGTHS = np.array([7, 4], dtype=np.int32)
MASK = np.arange(7) < LENGTHS[:, None]

# name: (query, key shapes, arguments)
CASES = {
    "plain": ((2, 7, 4, 8), (2, 7, 4, 8), {}),
    "no batch": ((7, 4, 8), (7, 4, 8), {}),
    "cross": ((2, 5, 4, 8), (2, 7, 4, 8), {}),
    "scale": ((2, 7, 4, 8), (2, 7, 4, 8), {"scale": 0.1}),
    "causal": ((2, 4, 2, 8), (2, 4, 2, 8), {"is_causal": True}),
    "grouped": ((2, 7, 4, 8), (2, 7, 2, 8), {}),
    "one key head": ((2, 5, 4, 8), (2, 7, 1, 8), {}),
    "padding": ((2, 7, 4, 8), (2, 7, 4, 8), {"mask": MASK[:, None, None]}),
    "one mask": ((2, 5, 4, 8), (2, 7, 2, 8), {"mask": MASK[1:, None, None]}),
    "mask without batch": ((7, 4, 8), (7, 4, 8), {"mask": MASK[1:, None, None]}),
    "bias": ((2, 7, 4, 8), (2, 7, 4, 8), {"bias": np.linspace(-2.0, 2.0, 56).reshape(2, 4, 1, 7)}),
    "bias and mask": (
        (5, 4, 8),
        (7, 1, 8),
        {"bias": np.linspace(-2.0, 2.0, 7)[None, None, None], "mask": MASK[1:, None, None]},
    ),
    "lengths": ((2, 7, 4, 8), (2, 7, 4, 8), {"query_seq_lengths": LENGTHS, "key_value_seq_lengths": LENGTHS}),
    "lengths and mask": ((2, 5, 4, 8), (2, 7, 2, 8), {"key_value_seq_lengths": LENGTHS, "mask": MASK[:1, None, None]}),
}


def problem(case, scale=1.0):
    query, key, given = CASES[case]
    rng = np.random.default_rng(0)
    inputs = [jnp.asarray(scale * rng.standard_normal(shape)) for shape in (query, key, key)]
    return inputs, {name: jnp.asarray(x) if isinstance(x, np.ndarray) else x for name, x in given.items()}


@pytest.mark.parametrize("case", CASES)
def test_means_what_jax_means(case):
    """Many features of small inputs: the exact outputs of JAX's own function."""
    inputs, given = problem(case, 0.2)
    phi = rf.PositiveFeatures(coupling="orthogonal").draw(8, 2**12, rng=0, like=inputs[0])
    out = jax.jit(functools.partial(dot_product_attention, **given, features=phi))(*inputs)
    expected = jax.nn.dot_product_attention(*inputs, **given)
    assert out.shape == expected.shape
    assert np.linalg.norm(out - expected) < 0.02 * np.linalg.norm(expected)


def test_is_linear_attention_in_another_layout():
    (q, k, v), given = problem("padding")
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=q, batch_shape=(4,))
    expected = rf.linear_attention(
        *(jnp.swapaxes(x, 1, 2) for x in (q, k, v)), phi, key_mask=jnp.asarray(MASK)[:, None]
    )
    assert same_bits(dot_product_attention(q, k, v, **given, features=phi), jnp.swapaxes(expected, 1, 2))


def test_transformations():
    """jit with the features closed over and as an argument, vmap over them, gradients: all the same function."""
    (q, k, v), given = problem("padding")
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)

    def attend(features, q):
        return dot_product_attention(q, k, v, **given, features=features)

    def loss(q):
        return jnp.sum(attend(phi, q) ** 2)

    def one(q, k, v, mask):
        return dot_product_attention(q, k, v, mask=mask[None], features=phi)

    compiled = jax.jit(attend)
    heads_first = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    expected = jnp.swapaxes(rf.linear_attention(*heads_first, phi, key_mask=jnp.asarray(MASK)[:, None]), 1, 2)
    np.testing.assert_allclose(compiled(phi, q), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(q, k, v, given["mask"]), expected, rtol=1e-12)
    maps = jax.tree.map(lambda *arrays: jnp.stack(arrays), phi, phi.redraw(1))
    both = jax.jit(jax.vmap(attend, in_axes=(0, None)))(maps, q)
    np.testing.assert_allclose(both[1], compiled(phi.redraw(1), q), rtol=1e-12)

    value, slope = jax.jit(jax.value_and_grad(loss))(q)
    direction = jnp.asarray(np.random.default_rng(1).standard_normal(q.shape))
    ends = [jnp.sum(compiled(phi, q + step * direction) ** 2) for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(value, jnp.sum(expected**2), rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(slope * direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-7)


def test_feature_maps_are_pytrees():
    (q, _, _), _ = problem("plain")
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)
    leaves, tree = jax.tree.flatten(phi)
    again = jax.tree.unflatten(tree, leaves)
    assert [leaf.shape for leaf in leaves] == [(16, 8)]
    assert (again.estimator, again.dim, again.num_features) == (phi.estimator, 8, 16)
    assert jax.tree.structure(phi.redraw(1)) == tree


def tokens_and_map(*lead):
    """Queries, keys and values (*lead, 9, 8), and a map for each head."""
    q, k, v = jnp.asarray(np.random.default_rng(3).standard_normal((3, *lead, 9, 8)))
    return (q, k, v), rf.PositiveFeatures().draw(8, 16, rng=0, like=q, batch_shape=lead[-1:])


def test_states_are_pytrees():
    """Decoding as a scan: the state of a prompt is carried; what is carried has no map, which may be traced."""
    arrays, phi = tokens_and_map(2, 4)
    on_host = [np.asarray(x) for x in arrays]
    expected, after = rf.linear_attention(*on_host, phi.to(on_host[0]), is_causal=True, return_state=True)
    _, prompt = rf.linear_attention(*(x[..., :3, :] for x in arrays), phi, return_state=True)

    @jax.jit
    def decode(phi, state, *tokens):
        def step(state, token):
            options = {"is_causal": True, "initial_state": state, "return_state": True}
            output, state = rf.linear_attention(*(x[..., None, :] for x in token), phi, **options)
            return state, output[..., 0, :]

        return jax.lax.scan(step, state, tuple(jnp.moveaxis(x, -2, 0) for x in tokens))

    state, outputs = decode(phi, prompt, *(x[..., 3:, :] for x in arrays))
    np.testing.assert_allclose(jnp.moveaxis(outputs, 0, -2), expected[..., 3:, :], rtol=1e-12, atol=1e-14)
    assert isinstance(state, rf.AttentionState)
    assert state.origin is None
    for name in ("log_max", "weighted", "total"):
        np.testing.assert_allclose(getattr(state, name), getattr(after, name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("estimator", [rf.PositiveFeatures(), rf.TrigonometricFeatures()])
def test_an_empty_state_is_the_carry_of_a_scan(rng, estimator, length):
    """With a maximum for each feature its shapes stay, whichever shape the scales of the keys have."""
    q, k, v = (jnp.asarray(x, jnp.float32) for x in rng.standard_normal((3, 2, 12, 4)) / 2)
    phi = estimator.draw(4, 8, rng=0, like=q)

    def step(state, tokens):
        out, state = rf.linear_attention(*tokens, phi, is_causal=True, initial_state=state, return_state=True)
        return state, out

    start = rf.AttentionState.empty(8, 4, like=q, batch_shape=(2,), per_feature=True)
    pieces = tuple(jnp.moveaxis(jnp.reshape(x, (2, 12 // length, length, 4)), 1, 0) for x in (q, k, v))
    state, outputs = jax.lax.scan(step, start, pieces)
    whole, after = rf.linear_attention(q, k, v, phi, is_causal=True, return_state=True)
    assert np.allclose(jnp.reshape(jnp.moveaxis(outputs, 0, 1), (2, 12, 4)), whole, atol=1e-4)
    keys = [np.asarray(x.total * jnp.swapaxes(jnp.exp(x.log_max), -1, -2)) for x in (state, after)]
    assert np.allclose(*keys, rtol=1e-4, atol=1e-4)


def test_states_are_mapped_over():
    """`vmap` over a batch of states, features and partial outputs."""
    arrays, phi = tokens_and_map(2, 4)
    expected = rf.linear_attention(*arrays, phi)

    def summed(k, v):
        return rf.linear_attention(k, k, v, phi, return_state=True)[1]

    def read(state, features):
        return state.partial(features)

    q, k, v = arrays
    states = jax.vmap(summed)(k, v)
    queries = jax.vmap(phi.queries)(q * 8**-0.25)
    part = jax.jit(jax.vmap(read))(states, queries)
    assert states.total.shape == (2, 4, 16, 1)
    np.testing.assert_allclose(part.normalized(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, jnp.bfloat16])
def test_masks_of_zeros_and_ones(dtype):
    """Flax makes them so by default; under jit, where their values are not known, too."""
    (q, k, v), given = problem("padding")
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)
    mask = given["mask"].astype(dtype)
    expected = dot_product_attention(q, k, v, **given, features=phi)
    for attend in (lambda mask: dot_product_attention(q, k, v, mask=mask, features=phi),
                   lambda mask: attention_fn(phi)(q, k, v, mask=mask)):  # fmt: skip
        assert same_bits(attend(mask), expected)
    np.testing.assert_allclose(jax.jit(attend)(mask), expected, rtol=1e-12)


def test_flax_signature():
    """As flax.linen and flax.nnx call it: no causal argument, many that do not matter."""
    (q, k, v), _ = problem("plain")
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)
    attend = attention_fn(phi)
    options = {
        "dropout_rng": None,
        "dropout_rate": 0.1,
        "deterministic": True,
        "broadcast_dropout": True,
        "dtype": None,
    }
    mask = jnp.asarray(MASK)[:, None, None]
    for causal in (False, True):
        ours = jax.make_jaxpr(lambda *x, c=causal: dot_product_attention(*x, None, mask, is_causal=c, features=phi))
        theirs = jax.make_jaxpr(lambda *x, c=causal: attention_fn(phi, is_causal=c)(*x, mask=mask, **options))
        assert str(ours(q, k, v)) == str(theirs(q, k, v))
    asked = jax.make_jaxpr(lambda *x: attend(*x, mask=mask, is_causal=True, module=None))  # by the call, as nnx does
    assert str(asked(q, k, v)) == str(ours(q, k, v))
    assert attend(q, k, v, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="dropout_rate must be 0"):
        attend(q, k, v, dropout_rate=0.1)
    for causal in ("no", 1):
        with pytest.raises(TypeError, match="is_causal must be True or False"):
            attend(q, k, v, is_causal=causal)
        with pytest.raises(TypeError, match="is_causal must be True or False"):
            attention_fn(phi, is_causal=causal)
    with pytest.raises(ValueError, match="sow_weights must be off"):
        attend(q, k, v, module=object())
    with pytest.raises(ValueError, match="decay and window cannot be combined"):
        attention_fn(phi, decay=0.5, window=3)


def test_flax_arguments_have_their_places():
    """By position, too: the order of `flax.linen.dot_product_attention` and of the function of nnx."""
    names = list(inspect.signature(attention_fn(None)).parameters)
    assert names[:12] == [
        "query", "key", "value", "bias", "mask", "broadcast_dropout", "dropout_rng", "dropout_rate", "deterministic",
        "dtype", "precision", "module",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"decay": 0.6, "is_causal": True},
        {"window": 2, "is_causal": True, "causal_offset": 1},
        {"relative_bias": np.linspace(-1.0, 1.0, 13)},
        {"key_ends": np.array([1, 7, 2, 3, 0, 5, 4])},
        {"cu_seqlens": [0, 3, 7]},
        {"method": "auto"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_are_those_of_linear_attention(options):
    """The same program, in another layout; and so through the function for Flax. Packed sequences have a callback."""
    (q, k, v), _ = problem("plain")
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)

    def ours(*x):
        return dot_product_attention(*x, features=phi, host=False, **options)

    def expected(*x):
        heads_first = (jnp.swapaxes(y, 1, 2) for y in x)
        return jnp.swapaxes(rf.linear_attention(*heads_first, phi, **options), 1, 2)

    program = str(jax.make_jaxpr(expected)(q, k, v))
    assert str(jax.make_jaxpr(ours)(q, k, v)) == program
    if "key_ends" not in options and "cu_seqlens" not in options:
        assert str(jax.make_jaxpr(attention_fn(phi, **options))(q, k, v)) == program
    plain = str(jax.make_jaxpr(lambda *x: dot_product_attention(*x, features=phi))(q, k, v))
    assert plain != program
    if "cu_seqlens" in options:
        assert "callback" in str(jax.make_jaxpr(lambda *x: dot_product_attention(*x, features=phi, **options))(q, k, v))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"bias": np.zeros((2, 4, 7, 7))}, ValueError, "a bias of pairs of queries and keys has no linear-time form"),
        ({"bias": np.ones((2, 1, 1, 7), bool)}, TypeError, "bias must be floating numbers, got dtype bool"),
        ({"local_window_size": 3}, ValueError, "local_window_size has no"),
        ({"mask": np.ones((2, 4, 7, 7), bool)}, ValueError, "pairs of queries and keys"),
        ({"mask": np.full((2, 1, 1, 7), -np.inf)}, ValueError, "or 1 where a key takes part and 0 where it does not"),
        ({"key_value_seq_lengths": np.ones((2, 1), int)}, ValueError, r"key_value_seq_lengths must be integers \(B,\)"),
        ({"query_seq_lengths": np.ones(2)}, ValueError, r"query_seq_lengths must be integers \(B,\)"),
        ({"layout": "blhd"}, ValueError, "layout cannot be given to dot_product_attention: it has arguments"),
        ({"widow": 3}, TypeError, "dot_product_attention got widow, expected keywords of linear_attention"),
        ({"query": np.ones((7, 4, 8))}, ValueError, r"shapes \(B, T, N, H\)"),
        ({"features": rf.PositiveFeatures()}, TypeError, "must be a FeatureMap"),
    ],
)
def test_refusals(given, error, message):
    (q, k, v), _ = problem("plain")
    features = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)
    with pytest.raises(error, match=message):
        dot_product_attention(**{"query": q, "key": k, "value": v, "features": features, **given})


def test_a_traced_switch_is_to_be_static():
    x = jnp.ones((7, 4, 8))
    phi = rf.PositiveFeatures().draw(dim=8, num_features=4, rng=0, like=x)
    with pytest.raises(
        TypeError, match=r"is_causal must be .* make it static: jax.jit\(..., static_argnames='is_causal'\)"
    ):
        jax.jit(dot_product_attention)(x, x, x, features=phi, is_causal=True)
    static = jax.jit(dot_product_attention, static_argnames="is_causal")
    assert static(x, x, x, features=phi, is_causal=True).shape == x.shape


SHARDED = """
import numpy as np, jax, randfeat as rf, randfeat.integrations.jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
inputs = jax.random.normal(jax.random.key(0), (3, 4, 7, 8))
first, *others = jax.devices()
assert len(others) == 3
split = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
sharded = [jax.device_put(x, split) for x in inputs]
attend = lambda phi, *inputs: rf.linear_attention(*inputs, phi)
for like, place in ((sharded[0], first), (jax.device_put(inputs, others[0]), others[0])):
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=like)
    assert phi.arrays["rows"].devices() == phi.to(like).arrays["rows"].devices() == {place}
    expected = np.asarray(jax.jit(attend)(phi, *inputs))
    for function in (jax.jit(attend), attend) if place is first else (jax.jit(attend),):
        actual = function(phi, *sharded)
        assert actual.sharding.device_set == set(jax.devices())
        np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-4, atol=1e-6)
    on_one = jax.jit(lambda *inputs: attend(phi, *inputs))(*(jax.device_put(x, others[1]) for x in inputs))
    assert on_one.devices() == {others[1]}
"""


def test_maps_go_with_inputs_on_one_device_or_on_many():
    """Drawn like an array, moved to it, closed over, or given as an argument."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([sys.executable, "-c", SHARDED], check=True, env=environment)


@pytest.mark.parametrize("is_causal", [False, True])
def test_infinite_logarithms_of_absent_keys_stay_inside_of_compiled_functions(is_causal):
    """With jax.debug_infs the results of a compiled function are looked at: they are finite, also without any key."""
    q, k, v = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 5, 8)))
    phi = rf.PositiveFeatures().draw(8, 16, rng=0, like=q)

    @jax.jit
    def attend(query, key, mask):
        attention = lambda *inputs: jnp.sum(rf.linear_attention(*inputs, v, phi, is_causal=is_causal, key_mask=mask))  # noqa: E731
        return jax.value_and_grad(attention, argnums=(0, 1))(query, key)

    with jax.debug_infs(True):
        value, gradients = attend(q, k, jnp.asarray([[True] * 5, [False] * 5]))
    assert all(np.all(np.isfinite(x)) for x in (value, *gradients))
    assert not np.any(gradients[1][1])
