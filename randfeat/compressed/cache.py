"""KeyCache: a few biased keys that stand for many, and compress, which makes one."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import Array, as_floating, cast, is_compiling, move_to, namespace, own_precision
from randfeat._hints import hinted
from randfeat.attention import softmax_attention
from randfeat.attention.cost_model.sizes import NUM_KEYS
from randfeat.attention.inputs import Inputs
from randfeat.attention.partial import PartialOutput
from randfeat.compressed.compression import Options, compressed_rows, exact_rows
from randfeat.compressed.heads import check_loaded, check_query_mask
from randfeat.compressed.routing import clusters_of, partial_of, read_routed
from randfeat.kernels import SoftmaxKernel


@dataclass(frozen=True, eq=False)
class KeyCache:
    """Keys with biases and values, which softmax attention reads in place of many more keys.

        o(q) = Σ_n exp(scale · q·w_n + b_n) u_n / Σ_n exp(scale · q·w_n + b_n)

    keys (..., n, d), bias (..., n), values (..., n, dv): rows w_n, b_n, u_n. A bias of `-inf` is a row that does not
    take part. The masses `exp(scale · q·w_n + b_n)` are absolute: those of real keys have b = 0. So caches of disjoint
    keys, and real keys, can be joined (`concat`) or read apart and merged (`read`).

    route : (..., C, d + 1) or None.
        With a route the cache has one set of rows for each of C clusters of queries: keys (..., C, n, d) and so on.
        The query q reads the set with the largest `route · (q, 1)`.
    scale : the scale of the logits that the cache was made for; None is 1/√d.

    `randfeat.compress` makes caches, `KeyCache.exact` takes keys as they are. The arrays have the library, device and
    dtype of the keys; biases have the computing dtype (float32 for float16 and bfloat16). Caches are immutable. `save`
    and `load`, `copy`, `pickle` and, with `randfeat.integrations.jax`, `jax.jit` take them.

    A cache is as good as the queries that it was made for are typical: `randfeat.output_error` measures its outputs.

    >>> import numpy as np, randfeat as rf
    >>> q, k, v = np.random.default_rng(0).standard_normal((3, 2, 500, 16))
    >>> cache = rf.compress(k, v, num_keys=32, queries=q, rng=0)
    >>> cache.keys.shape, cache.read(q).normalized().shape
    ((2, 32, 16), (2, 500, 16))
    >>> whole = cache.read(q).merge(rf.KeyCache.exact(k[:, :10], v[:, :10]).read(q))
    >>> joined = cache.concat(rf.KeyCache.exact(k[:, :10], v[:, :10]))
    >>> bool(np.allclose(joined.read(q).normalized(), whole.normalized()))
    True
    """

    keys: Array
    bias: Array
    values: Array
    route: Array | None = None
    scale: float | None = None

    def __repr__(self) -> str:
        clusters = "" if self.route is None else f", num_clusters={self.route.shape[-2]}"
        batch = f", batch_shape={self.batch_shape}" if self.batch_shape else ""
        return f"KeyCache(num_keys={self.num_keys}, dim={self.keys.shape[-1]}{clusters}{batch})"

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions: one cache for each key head."""
        return tuple(self.keys.shape[: -2 if self.route is None else -3])

    @property
    def num_keys(self) -> int:
        """The number of rows that a query reads."""
        return int(self.keys.shape[-2])

    @classmethod
    def exact(cls, key: Any, value: Any, *, key_mask: Any = None, scale: float | None = None) -> "KeyCache":
        """The keys (..., S, d) and values (..., S, dv) themselves, with bias 0, or `-inf` where `key_mask` is False."""
        key = as_floating(key, "key")
        inputs = Inputs.of(key[..., :0, :], key, value, kernel=SoftmaxKernel(), scale=scale, key_mask=key_mask)
        return cls(*exact_rows(inputs), None, scale)

    def read(self, query: Any, *, enable_gqa: bool = False) -> PartialOutput:
        """Numerators and denominators for queries (..., L, d); `normalized()` of them is the output (..., L, dv).

        Queries have the dtype of the keys; outputs have the computing dtype. With `enable_gqa` the query heads
        (dimension -3) of a group read the cache of their key head. Time O(num_keys L).
        """
        if self.route is not None or is_compiling(self.keys):  # in a graph of all lengths there are no blocks
            return self.read_at_once(query, enable_gqa=enable_gqa)
        return softmax_attention(
            query, self.keys, self.values,
            key_bias=self.bias, scale=self.scale, enable_gqa=enable_gqa, return_partial=True,
        )  # fmt: skip

    def read_at_once(self, query: Any, *, enable_gqa: bool) -> PartialOutput:
        """Partial outputs of all queries together, each of which reads the rows of its cluster, or all rows."""
        of_one = (...,) if self.route is None else (..., 0, slice(None), slice(None))
        inputs = Inputs.of(
            query, self.keys[of_one], self.values[of_one],
            kernel=SoftmaxKernel(), scale=self.scale, enable_gqa=enable_gqa,
        )  # fmt: skip
        dtype, grouped, routed = self.bias.dtype, enable_gqa, self.route is not None
        queries, scale = cast(inputs.query, dtype), inputs.root**2

        def for_group(x: Array, trailing: int) -> Array:
            return cast(x[..., None, *(slice(None) for _ in range(trailing))] if grouped else x, dtype)

        keys, bias, values = (for_group(x, k + routed) for x, k in ((self.keys, 2), (self.bias, 1), (self.values, 2)))
        with own_precision(queries):
            if self.route is None:
                logits = scale * (queries @ namespace(keys).matrix_transpose(keys)) + bias[..., None, :]
                return inputs.restore_partial(partial_of(logits, values))
            assigned = clusters_of(queries, for_group(self.route, 2))
            return inputs.restore_partial(read_routed(queries, keys, bias, values, assigned, scale))

    def concat(self, other: "KeyCache") -> "KeyCache":
        """The cache of both sets of keys, which must be disjoint; at most one of the two may have a route.

        ValueError if the caches have different scales or dimensions.
        """
        if not isinstance(other, KeyCache):
            raise TypeError(f"expected a KeyCache, got {type(other).__name__}; KeyCache.exact takes keys and values.")
        if self.route is not None and other.route is not None:
            raise ValueError("two caches with routes cannot be joined; read both, and merge the partial outputs.")
        if self.scale != other.scale:
            raise ValueError(f"the caches are for different scales, {self.scale} and {other.scale}.")
        if self.keys.shape[-1] != other.keys.shape[-1] or self.values.shape[-1] != other.values.shape[-1]:
            dims = tuple((x.keys.shape[-1], x.values.shape[-1]) for x in (self, other))
            raise ValueError(f"the caches have the dimensions {dims[0]} and {dims[1]} of keys and values.")
        xp, routed = namespace(self.keys, other.keys), self.route is not None or other.route is not None

        def joined(name: str, trailing: int) -> Array:
            pair = [
                getattr(x, name)[..., None, *(slice(None) for _ in range(trailing))]
                if routed and x.route is None
                else getattr(x, name)
                for x in (self, other)
            ]
            lead = np.broadcast_shapes(*(x.shape[: x.ndim - trailing] for x in pair))
            pair = [xp.broadcast_to(x, (*lead, *x.shape[x.ndim - trailing :])) for x in pair]
            return xp.concat(pair, axis=-trailing)

        route = other.route if self.route is None else self.route
        return KeyCache(joined("keys", 2), joined("bias", 1), joined("values", 2), route, self.scale)

    @hinted
    def compress(
        self,
        num_keys: int,
        *,
        queries: Any,
        fit: bool = True,
        folds: str = "random",
        query_mask: Any = None,
        enable_gqa: bool = False,
        rng: Any = 0,
    ) -> "KeyCache":
        """A smaller cache in place of this one, whose rows carry their biases; arguments as of `randfeat.compress`."""
        if self.route is not None:
            raise ValueError("a cache with a route cannot be compressed; compress one that all queries read.")
        return compress(
            self.keys, self.values, num_keys=num_keys, queries=queries, fit=fit, folds=folds, scale=self.scale,
            query_mask=query_mask, key_bias=self.bias, enable_gqa=enable_gqa, rng=rng,
        )  # fmt: skip

    def to(self, like: Array) -> "KeyCache":
        """The cache in the library, device and dtype of `like`."""
        like = as_floating(like, "like")
        keys, bias, values = (move_to(x, like) for x in (self.keys, self.bias, self.values))
        route = None if self.route is None else move_to(self.route, like)
        return replace(self, keys=cast(keys, like.dtype), bias=bias, values=cast(values, like.dtype), route=route)


@hinted
def compress(
    key: Any,
    value: Any,
    *,
    num_keys: int = NUM_KEYS,
    queries: Any,
    fit: bool = True,
    folds: str = "random",
    scale: float | None = None,
    key_mask: Any = None,
    query_mask: Any = None,
    key_bias: Any = None,
    enable_gqa: bool = False,
    rng: Any = 0,
) -> KeyCache:
    """A `KeyCache` of at most `num_keys` rows that softmax attention reads in place of the keys.

    Keys that typical queries do not tell apart are merged: clusters in the metric of the queries' covariance, each
    replaced by its mean under the attention that it gets, with the bias that keeps its mean mass. Time O(num_keys S).

    Parameters
    ----------
    key : (..., S, d).
        S keys of each head. The leading dimensions are free; each head has a cache of its own.
    value : (..., S, dv).
        One value for each key.
    num_keys : int.
        At most so many rows, 64 by default. With as many rows as keys, the cache is exact.
    queries : (..., R, d).
        Typical queries: what the cache is made for. Of many, 2 `num_keys` are drawn (4 `num_keys` with a fit), at least
        32.
    fit : bool.
        If True, masses and values of the rows are then fitted to the outputs of the queries, by regression towards the
        merged keys. This takes several times as long, and pays if thousands of queries like these read the cache. The
        fitted values can lie outside of the range of the values. If False, the outputs are convex combinations of the
        values.
    folds : "random" or "blocks".
        How the queries are divided for the choice of the penalty of the fit: "random" for exchangeable queries,
        "blocks" (quarters in order of time) for a prefix that later, different queries will read.
    scale : float.
        Factor of the logits, 1/√d by default.
    key_mask, query_mask : bool, True = take part.
        Masked keys are as if they were not there. Masked queries are not used as references.
    key_bias : (S,) or the shape of `key` without its last dimension.
        Biases of the keys, where they are rows of a cache already.
    enable_gqa : bool.
        If True, the query heads (dimension -3) of a group share the cache of their key head; references are pooled.
    rng : see `Estimator.draw`.
        Equal seeds give equal caches, whatever the number of threads or heads, or the place in a batch.

    Returns
    -------
    KeyCache in the library, device and dtype of the keys. If heads have different numbers of rows, the shorter ones end
    with rows of bias `-inf`.

    The fit is computed on the host, in float32 for float32 keys and float64 otherwise; regression is in float64.
    Keys and values of the rows are differentiable in `key` and `value`, with the fit held constant.

    Errors of the outputs are not bounded by theory: measure them with `randfeat.output_error`. ValueError if there
    is no query; TypeError while a function is traced by a compiler, as a fit needs numbers.

    Source: `docs/theory/compressed.md` derives the formulas and names what they build on.

    >>> import numpy as np, randfeat as rf
    >>> q, k = np.random.default_rng(0).standard_normal((2, 1000, 4))
    >>> v = np.concatenate([k, k**2], axis=-1)
    >>> cache = rf.compress(k, v, num_keys=64, queries=q)
    >>> out, exact = cache.read(q).normalized(), rf.softmax_attention(q, k, v)
    >>> bool(np.linalg.norm(out - exact) < 0.05 * np.linalg.norm(exact))
    True
    """
    options = Options(num_keys, fit, folds)
    inputs = Inputs.of(
        queries, key, value, kernel=SoftmaxKernel(),
        scale=scale, key_mask=key_mask, enable_gqa=enable_gqa, key_bias=key_bias,
    )  # fmt: skip
    check_loaded(inputs)
    with own_precision(inputs.value):
        return KeyCache(*compressed_rows(inputs, check_query_mask(query_mask, inputs), options, rng), None, scale)
