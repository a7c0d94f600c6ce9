"""JAX: linear attention as a replacement of jax.nn.dot_product_attention, and for Flax modules."""

from collections.abc import Callable
from typing import Any

from randfeat._hints import needs

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError(needs("jax", "JAX", "jax")) from error

from randfeat._array import as_bool
from randfeat.attention import AttentionState, PartialOutput
from randfeat.compressed import KeyCache
from randfeat.features import Features
from randfeat.integrations.jax_callback import linear_attention
from randfeat.integrations.masks import key_bias_of, key_mask_of, present_of
from randfeat.integrations.options import check_options
from randfeat.maps import FeatureMap

__all__ = ["attention_fn", "dot_product_attention"]

STATES_AND_LAYOUT = ("initial_state", "return_state", "layout", "enable_gqa", "key_mask", "key_lengths", "key_bias")


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: jax.Array | None = None,
    key_value_seq_lengths: jax.Array | None = None,
    local_window_size: None = None,
    features: FeatureMap,
    host: bool | None = None,
    **options: Any,
) -> jax.Array:
    """`jax.nn.dot_product_attention`, estimated with `features` in linear time.

    query (B, T, N, H) or (T, N, H), key and value (B, S, K, H), where N is a multiple of K -> (B, T, N, H).

    mask : (B, 1, 1, S) or broadcastable to it, True = take part; 1 and 0 are taken for True and False, as in Flax.
    bias : summands of the logits, (B, K or 1, 1, S). Masks and biases of (T, S) pairs are refused, as is
        `local_window_size`: they have no linear-time form.
    query_seq_lengths, key_value_seq_lengths : int, (B,). Outputs beyond the length are zero; keys beyond it are absent.
    features : from `estimator.draw(..., like=query)`. It is a pytree: it may be an argument of a transformed function,
        or closed over.
    host : if True, NumPy computes output and gradient where a compiled function runs on a CPU, in a callback; if False,
        JAX does. The callback is the default of causal and packed attention, `window` and `decay`, if this process sees
        one device only. It can be neither serialized by `jax.export` nor sharded, and has no forward-mode derivatives
        (`jvp`).
    options : other keywords of `randfeat.linear_attention`: decay, window (exact weights inside, estimated ones
        outside), relative_bias, key_ends, causal_offset, cu_seqlens, method. Their arrays have the layout of that
        function, with heads before the length.

    >>> import jax, randfeat as rf
    >>> q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 100, 8, 16))
    >>> phi = rf.PositiveFeatures().draw(dim=16, num_features=64, rng=0, like=q, batch_shape=(8,))
    >>> jax.jit(dot_product_attention)(q, k, v, features=phi).shape
    (2, 100, 8, 16)
    """
    if local_window_size is not None:
        raise ValueError("local_window_size has no linear-time form: it must be None.")
    reason = "it has arguments of its own for masks and lengths, one layout, and no states"
    check_options(options, where="dot_product_attention", refused=STATES_AND_LAYOUT, reason=reason)
    query, key, value = jnp.asarray(query), jnp.asarray(key), jnp.asarray(value)
    if query.ndim not in (3, 4) or not query.ndim == key.ndim == value.ndim:
        raise ValueError(
            "query, key and value must have shapes (B, T, N, H), (B, S, K, H), (B, S, K, H), or all without B; "
            f"got {query.shape}, {key.shape}, {value.shape}."
        )
    key_mask = key_bias = None
    if mask is not None:
        present = present_of(jnp.asarray(mask), name="mask")
        key_mask = without_batch(key_mask_of(present, key.ndim, name="mask"), key.ndim - 1)
    if bias is not None:
        key_bias = without_batch(key_bias_of(jnp.asarray(bias), key.ndim, name="bias"), key.ndim - 1)
    if key_value_seq_lengths is not None:
        present = before_end(key_value_seq_lengths, key.shape[-3], query.ndim, "key_value_seq_lengths")
        key_mask = present if key_mask is None else key_mask & present
    output = linear_attention(
        jnp.swapaxes(query, -3, -2),
        jnp.swapaxes(key, -3, -2),
        jnp.swapaxes(value, -3, -2),
        features,
        is_causal=is_causal,
        scale=scale,
        key_mask=key_mask,
        key_bias=key_bias,
        enable_gqa=query.shape[-2] != key.shape[-2],
        host=host,
        **options,
    )
    if query_seq_lengths is not None:
        present = before_end(query_seq_lengths, query.shape[-3], query.ndim, "query_seq_lengths")
        output = jnp.where(present[..., None], output, jnp.zeros_like(output))
    return jnp.swapaxes(output, -3, -2)


def attention_fn(
    features: FeatureMap, *, is_causal: bool = False, host: bool | None = None, **fixed: Any
) -> Callable[..., jax.Array]:
    """The `attention_fn` of `flax.linen.MultiHeadDotProductAttention` and `flax.nnx.MultiHeadAttention`.

    Masks and biases are those of `dot_product_attention`: one number for each key, (batch, 1, 1, length), as
    `flax.linen.make_attention_mask(jax.numpy.ones((batch, 1)), present)` makes it, in its default dtype, too. For
    causal attention set `is_causal`, here or in the call of the nnx module; a causal mask is refused, like all masks
    over pairs, and so is the autoregressive decoding of these modules, which needs one. Dropout of weights must be off:
    `deterministic`, or rate 0. `sow_weights` must be off. Inputs are cast to the `dtype` of the module, if it has one.
    Other arguments of the modules describe how to compute the matrix of weights, and are ignored.

    host, fixed : as in `dot_product_attention`, and other keywords of `randfeat.linear_attention`, for every call.
    """
    check_options({"is_causal": is_causal or None, **fixed}, where="attention_fn")

    def attend(
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        bias: jax.Array | None = None,
        mask: jax.Array | None = None,
        broadcast_dropout: bool = True,
        dropout_rng: Any = None,
        dropout_rate: float = 0.0,
        deterministic: bool = False,
        dtype: Any = None,
        precision: Any = None,
        module: Any = None,
        *,
        is_causal: bool = False,
        **unused: Any,
    ) -> jax.Array:
        if dropout_rate != 0 and not deterministic:
            raise ValueError(
                f"dropout_rate must be 0, got {dropout_rate}: there are no single weights to drop; drop outputs, by "
                "flax.linen.Dropout or flax.nnx.Dropout behind the module."
            )
        if module is not None:
            raise ValueError("sow_weights must be off: there are no single weights to keep.")
        if dtype is not None:
            query, key, value = (jnp.asarray(x, dtype) for x in (query, key, value))
        causal = as_bool(is_causal, "is_causal") or always_causal  # nnx modules pass False by default
        given = {"is_causal": causal, "features": features, "host": host, **fixed}
        return dot_product_attention(query, key, value, bias, mask, **given)

    always_causal = as_bool(is_causal, "is_causal")
    return attend


def without_batch(x: jax.Array, ndim: int) -> jax.Array:
    """`x` (1, heads, S) of inputs that have no batch as (heads, S); arrays of at most `ndim` axes are returned."""
    return x.reshape(x.shape[1:]) if x.ndim > ndim and x.shape[0] == 1 else x


def before_end(lengths: Any, size: int, ndim: int, name: str) -> jax.Array:
    """Mask of the positions before the end of each sequence, bool (B, 1, size), from lengths (B,)."""
    lengths = jnp.asarray(lengths)
    if ndim != 4 or lengths.ndim != 1 or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(f"{name} must be integers (B,) for inputs (B, T, N, H), got {lengths.dtype} {lengths.shape}.")
    return jnp.arange(size) < lengths[:, None, None]


def flatten(features: FeatureMap) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arrays of a feature map as leaves of a pytree; estimator and sizes are static."""
    names = tuple(sorted(features.arrays))
    return tuple(features.arrays[name] for name in names), (
        features.estimator, features.dim, features.num_features, names
    )  # fmt: skip


def unflatten(static: tuple[Any, ...], leaves: tuple[Any, ...]) -> FeatureMap:
    """The feature map with these leaves."""
    estimator, dim, num_features, names = static
    return FeatureMap(estimator, dim, num_features, dict(zip(names, leaves, strict=True)))


def register_arrays(cls: type, *names: str) -> None:
    """Make a pytree of a class: its arrays of these names are the leaves, and it is made of them again."""

    def flatten_arrays(value: Any) -> tuple[tuple[Any, ...], None]:
        return tuple(getattr(value, name) for name in names), None

    jax.tree_util.register_pytree_node(cls, flatten_arrays, lambda _, leaves: cls(*leaves))


jax.tree_util.register_pytree_node(FeatureMap, flatten, unflatten)
jax.tree_util.register_dataclass(KeyCache, data_fields=["keys", "bias", "values", "route"], meta_fields=["scale"])
register_arrays(Features, "values", "log_scale")
register_arrays(PartialOutput, "numerator", "denominator", "log_scale")
# Without `origin`: a state of `scan` begins empty, and the map of a traced call does not outlive it.
register_arrays(AttentionState, "log_max", "weighted", "total")
