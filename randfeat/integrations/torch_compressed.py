"""PyTorch: compressed attention and key caches as nn.Modules without parameters."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from randfeat._array import as_bool, to_numpy
from randfeat._hints import described, hinted, keyword_hint, translated
from randfeat.attention.inputs import in_one_dtype
from randfeat.compressed import KeyCache, QueryClusters, clustered_attention, compressed_attention
from randfeat.compressed.query_clusters import NAMES
from randfeat.integrations.masks import key_mask_of
from randfeat.integrations.torch_compressed_operator import attend_in_graph

__all__ = ["METHODS", "CachedAttention", "CompressedAttention", "attend_by", "sdpa_by"]

METHODS: dict[str, Callable[..., Any]] = {"clustered": clustered_attention, "compressed": compressed_attention}
OF_ONE_CALL = ("key_mask", "query_mask", "queries", "initial_state", "return_state")
HALF = (torch.float16, torch.bfloat16)


def check_method(method: Any, options: Mapping[str, Any], *, where: str) -> None:
    """Raise an error for a method that does not exist, and for options that its function does not have."""
    if method not in METHODS:
        raise ValueError(f'method must be "clustered" or "compressed", got {method!r}.')
    if method == "clustered" and options.get("is_causal"):
        raise ValueError(
            'is_causal=True cannot be combined with method="clustered": clusters that are fitted to a sequence have '
            'seen all of it; method="compressed" has a causal form.'
        )
    parameters = inspect.signature(METHODS[method]).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    unknown = [name for name in options if name not in (*known, "is_causal")]
    if unknown:
        names = frozenset(known)
        hint = translated(unknown[0], names) or keyword_hint(unknown[0], names)
        hint = "" if hint.startswith("it takes") else f"; {unknown[0]}: {hint}"
        raise TypeError(
            f"{where} got {', '.join(unknown)}, expected keywords of {METHODS[method].__name__}: "
            f"{', '.join(known)}{hint}."
        )


def attend_by(method: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, options: dict[str, Any]) -> Any:
    """The function of a method; while PyTorch compiles it, one operator of the graph."""
    if method == "clustered":
        options = {name: option for name, option in options.items() if name != "is_causal"}
    if not torch.compiler.is_compiling():
        return METHODS[method](query, key, value, **options)
    if options.get("initial_state") is not None or options.get("return_state"):
        return outside_of_the_graph(method, query, key, value, options)
    if isinstance(options.get("clusters"), QueryClusters):
        raise TypeError(
            "clusters are NumPy arrays, which a compiled graph cannot hold; CompressedAttention(clusters=...) has them "
            "in buffers."
        )
    return attend_in_graph(method, *in_one_dtype(query, key, value), **options)


@torch.compiler.disable
def outside_of_the_graph(method: str, *inputs: Any) -> Any:
    """The function of a method, between two compiled graphs: states are no tensors."""
    *tensors, options = inputs
    return METHODS[method](*tensors, **options)


def sdpa_by(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None, **options: Any
) -> torch.Tensor:
    """`scaled_dot_product_attention` by the method among the options."""
    method = options.pop("method")
    check_method(method, options, where=f'scaled_dot_product_attention with method="{method}"')
    if attn_mask is not None:
        if attn_mask.is_floating_point():
            raise TypeError(
                f'attn_mask must be boolean with method="{method}", True = take part, got {attn_mask.dtype}; summands '
                "that are 0 or -inf are the mask `attn_mask == 0`."
            )
        options["key_mask"] = key_mask_of(attn_mask, key.ndim, name="attn_mask")
    return attend_by(method, query, key, value, options)


class CompressedAttention(torch.nn.Module):
    """`randfeat.clustered_attention` or `randfeat.compressed_attention` as a module: nothing to train, nothing to fit.

    method : "clustered", which is the more accurate, or "compressed", which also has a causal form.
    clusters : `randfeat.QueryClusters` that were fitted to typical queries. They become buffers, which are saved and
        moved with the model, and stay in float32 when it is cast to half precision. By default clusters are fitted in
        each call, to its queries and keys; then the state_dict is empty.
    options : keywords of that function for every call: num_clusters, num_exact, accuracy, ..., or num_keys, is_causal,
        window, num_sinks, fit, ...

    Where the inputs are on a CPU and no gradient is recorded, it is computed by the path for NumPy, on the memory of
    the tensors. Otherwise the fit is on the host, and everything else on the device. Gradients hold the fit constant.

    `torch.compile` takes each call for one operator of the graph, also with `fullgraph=True` and `dynamic=True`; its
    gradient cannot be differentiated once more. A call with `initial_state` or `return_state` breaks the graph. Import
    `randfeat.integrations.torch` before an exported program is loaded.

    Dropout of single weights does not exist here; use `torch.nn.Dropout` on the output.

    >>> attention = CompressedAttention(method="clustered", num_clusters=11)
    >>> q, k, v = torch.randn(3, 2, 8, 500, 16)
    >>> attention(q, k, v).shape
    torch.Size([2, 8, 500, 16])
    >>> causal = CompressedAttention(method="compressed", is_causal=True, num_keys=32)
    >>> output, state = causal(q, k, v, return_state=True)
    >>> causal(q[..., :1, :], k[..., :1, :], v[..., :1, :], initial_state=state).shape
    torch.Size([2, 8, 1, 16])
    """

    @hinted
    def __init__(self, method: str = "clustered", *, clusters: QueryClusters | None = None, **options: Any) -> None:
        super().__init__()
        check_method(method, options, where=f'CompressedAttention with method="{method}"')
        if single := [name for name in options if name in OF_ONE_CALL]:
            raise ValueError(f"{', '.join(single)} cannot be given to CompressedAttention: they belong to one call.")
        self.method, self.options = method, options
        self._has_clusters = clusters is not None
        if clusters is None:
            return
        if method != "clustered":
            raise ValueError('clusters need method="clustered".')
        if not isinstance(clusters, QueryClusters):
            raise TypeError(f"clusters must be QueryClusters, got {described(clusters)}; QueryClusters.fit makes them.")
        self.scale = clusters.scale
        for name in NAMES:
            self.register_buffer(name, torch.tensor(getattr(clusters, name)))

    @property
    def clusters(self) -> QueryClusters | None:
        """The frozen clusters, made of the buffers; None if they are fitted in each call."""
        if not self._has_clusters:
            return None
        return QueryClusters(**{name: to_numpy(getattr(self, name)) for name in NAMES}, scale=self.scale)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> Any:
        """Attention, (..., L, d), (..., S, d), (..., S, dv) -> (..., L, dv).

        options : keywords of the function of the method; they take precedence over the options of the module. With
            `return_state=True` of causal attention, the result is the pair (output, state).
        """
        given = {**self.options, **options}
        if options:
            check_method(self.method, given, where=f'CompressedAttention with method="{self.method}"')
        if self._has_clusters:
            if torch.compiler.is_compiling():
                given |= {"scale": self.scale, "clusters": [getattr(self, name) for name in NAMES]}
            else:
                given["clusters"] = self.clusters
        return attend_by(self.method, query, key, value, given)

    def extra_repr(self) -> str:
        """Description of the method and its options, for `print(module)`."""
        parts = [f"method={self.method!r}", *(f"{name}={option!r}" for name, option in self.options.items())]
        return ", ".join([*parts, f"clusters={self.clusters}"] if self._has_clusters else parts)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "CompressedAttention":
        return apply_but_for_half(self, fn, recurse, super()._apply)


class CachedAttention(torch.nn.Module):
    """Softmax attention to a `randfeat.KeyCache` in buffers: cross attention to keys that do not change.

    cache : from `randfeat.compress`, or with a route from `QueryClusters.compress`. Its arrays become the buffers
        `keys`, `bias`, `values` and `route`. When the module is cast to half precision, keys and values follow; bias
        and route stay in float32.
    enable_gqa : if True, the query heads (dimension -3) of a group read the cache of their key head.

    The output has the dtype of the queries, which must be that of the cache.

    >>> import randfeat as rf
    >>> k, v, q = torch.randn(3, 8, 2000, 16)
    >>> attention = CachedAttention(rf.compress(k, v, num_keys=64, queries=q, fit=False))
    >>> attention(q[:, :100]).shape, sorted(attention.state_dict())
    (torch.Size([8, 100, 16]), ['bias', 'keys', 'values'])
    """

    @hinted
    def __init__(self, cache: KeyCache, enable_gqa: bool = False) -> None:
        super().__init__()
        if not isinstance(cache, KeyCache):
            raise TypeError(f"cache must be a KeyCache, got {described(cache)}; randfeat.compress makes one.")
        self.enable_gqa, self.scale = as_bool(enable_gqa, "enable_gqa"), cache.scale
        for name in ("keys", "bias", "values", "route"):
            array = getattr(cache, name)
            tensor = array if array is None or isinstance(array, torch.Tensor) else torch.from_numpy(to_numpy(array))
            self.register_buffer(name, None if tensor is None else tensor.detach().clone())

    @property
    def cache(self) -> KeyCache:
        """The cache, made of the buffers."""
        return KeyCache(self.keys, self.bias, self.values, self.route, self.scale)

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        """Attention to the cache, (..., L, d) -> (..., L, dv)."""
        output = self.cache.read(query, enable_gqa=self.enable_gqa).normalized()
        return output.to(query.dtype)

    def extra_repr(self) -> str:
        """Description of the cache, for `print(module)`."""
        return f"{self.cache!r}, enable_gqa={self.enable_gqa}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "CachedAttention":
        return apply_but_for_half(self, fn, recurse, super()._apply, except_for=("keys", "values"))


def apply_but_for_half(
    module: Any, fn: Any, recurse: bool, apply: Callable[..., Any], except_for: tuple[str, ...] = ()
) -> Any:
    """`module._apply(fn)`; buffers keep their dtype where it would be one of half precision, and move all the same."""
    before = dict(module.named_buffers(recurse=False))
    apply(fn, recurse)
    for name, buffer in before.items():
        moved = getattr(module, name)
        if moved.dtype in HALF and name not in except_for:
            setattr(module, name, buffer.to(moved.device))
    return module
