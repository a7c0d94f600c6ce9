"""PyTorch: linear attention as an nn.Module, and as a replacement of scaled_dot_product_attention."""

from collections.abc import Callable
from typing import Any

from randfeat._hints import needs

try:
    import torch
except ImportError as error:
    raise ImportError(needs("torch", "PyTorch", "torch")) from error

from randfeat._array import as_bool, as_count
from randfeat._hints import described, hinted
from randfeat.attention import linear_attention
from randfeat.attention.generic import causal_operator  # noqa: F401  so that exported programs find the operators
from randfeat.attention.torch import operators  # noqa: F401  when they are loaded
from randfeat.estimators.base import Estimator
from randfeat.integrations.masks import key_bias_of, key_mask_of
from randfeat.integrations.options import check_options
from randfeat.integrations.torch_compressed import METHODS, CachedAttention, CompressedAttention, sdpa_by
from randfeat.maps import FeatureMap

__all__ = ["CachedAttention", "CompressedAttention", "LinearAttention", "scaled_dot_product_attention"]


class LinearAttention(torch.nn.Module):
    """`randfeat.linear_attention` with the feature map in buffers, so that it is saved and moved with the model.

    estimator : the estimator to draw from. It is part of the code, not of the state_dict, and so are the sizes.
    dim, num_features : length of queries and keys, and of their features.
    heads : draw one map for each head, for inputs (..., heads, L, d). By default one map, or one for each set of
        parameters of the estimator.
    rng : seed of the draw, as in SPEC 7. By default it is an int from PyTorch's own generator. So modules differ from
        each other, and `torch.manual_seed` fixes them, as it does for the weights of other modules. The attribute `rng`
        keeps the seed. Afterwards only `redraw` and `set_estimator` draw again.
    persistent : if False, the features are not part of the state_dict, as in `register_buffer`. Give a seed then.
    dropout : probability of zero for each number of the output in training, as by `torch.nn.functional.dropout`. It is
        not the dropout of single weights, which linear attention never computes.
    options : keywords of `randfeat.linear_attention` for every call: is_causal, scale, decay, window, relative_bias,
        method, ... Tensors among them become buffers; `nn.Parameter`s are registered, so a `relative_bias` can be
        trained.

    Features are not trained, unless you make a parameter of them: `attention.rows = nn.Parameter(attention.rows)`.
    Buffers stay in float32, the dtype in which features are computed, when a model is cast to half precision. A
    state_dict of a model with exact attention, which has no features, loads strictly; the features stay as they are.

    >>> import randfeat as rf
    >>> attention = LinearAttention(rf.PositiveFeatures(), dim=16, num_features=64, heads=8)
    >>> q, k, v = torch.randn(3, 2, 8, 100, 16)
    >>> attention(q, k, v, is_causal=True).shape
    torch.Size([2, 8, 100, 16])
    >>> list(attention.state_dict())
    ['rows']
    """

    dropout: float = 0.0

    _made: tuple[FeatureMap, list[int]] | None = None
    """The feature map, and the versions of the buffers that it was made of."""

    @hinted
    def __init__(
        self,
        estimator: Estimator,
        dim: int,
        num_features: int,
        heads: int | None = None,
        rng: Any = None,
        persistent: bool = True,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        if not isinstance(estimator, Estimator):
            raise TypeError(f"estimator must be an Estimator, got {described(estimator)}.")
        check_options(options, where="LinearAttention")
        self._batch_shape = None if heads is None else (as_count(heads, "heads"),)
        self._persistent = as_bool(persistent, "persistent")
        self.dropout = as_probability(dropout)
        self.rng = int(torch.randint(2**63 - 1, (), device="cpu")) if rng is None else rng
        like = torch.empty(0, dtype=torch.get_default_dtype())
        self._hold(estimator.draw(dim, num_features, rng=self.rng, like=like, batch_shape=self._batch_shape))
        self._options = options
        for name, value in options.items():
            if isinstance(value, torch.nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, torch.Tensor):
                self.register_buffer(name, value)

    def _hold(self, features: FeatureMap) -> None:
        """Take a feature map as the estimator, the sizes and the buffers of the module."""
        self.estimator, self.dim, self.num_features = features.estimator, features.dim, features.num_features
        self._buffer_names = {name: name.replace(".", "_") for name in features.arrays}
        for name, array in features.arrays.items():
            self.register_buffer(self._buffer_names[name], array, persistent=self._persistent)

    @property
    def features(self) -> FeatureMap:
        """The feature map, made of the buffers; the same object, with its fingerprint, until one of them changes."""
        arrays = {name: getattr(self, buffer) for name, buffer in self._buffer_names.items()}
        if torch.compiler.is_compiling() or any(array.is_inference() for array in arrays.values()):
            return FeatureMap(self.estimator, self.dim, self.num_features, arrays)
        versions = [array._version for array in arrays.values()]  # a write in place counts one up
        if self._made is not None:
            features, then = self._made
            if then == versions and all(features.arrays[name] is array for name, array in arrays.items()):
                return features
        features = FeatureMap(self.estimator, self.dim, self.num_features, arrays)
        self._made = features, versions
        return features

    @property
    def options(self) -> dict[str, Any]:
        """Keywords for every call; tensors are on the device of the module."""
        return {
            name: getattr(self, name) if isinstance(value, torch.Tensor) else value
            for name, value in self._options.items()
        }

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> Any:
        """Linear attention, (..., L, d), (..., S, d), (..., S, dv) -> (..., L, dv).

        options : keywords of `randfeat.linear_attention`; they take precedence over the options of the module.
        """
        result = linear_attention(query, key, value, self.features, **{**self.options, **options})
        return dropped(result, self.dropout) if self.training else result

    @torch.no_grad()
    def redraw(self, rng: Any = None) -> None:
        """Replace the features in place by an independent draw."""
        for name, array in self.features.redraw(rng).arrays.items():
            getattr(self, self._buffer_names[name]).copy_(array)

    def reset_parameters(self) -> None:
        """Draw the features of the seed `rng` again, in place: after `to_empty`, for example."""
        self.redraw(self.rng)

    @hinted
    def set_estimator(self, estimator: Estimator, num_features: int | None = None, rng: Any = None) -> None:
        """Replace the features by a draw of another estimator, such as one that `randfeat.adapt` fitted.

        num_features, rng : those of the module by default. Buffers keep their device and dtype; new ones take the place
        of the old ones, and of parameters that were made of them.
        """
        if not isinstance(estimator, Estimator):
            raise TypeError(f"estimator must be an Estimator, got {described(estimator)}.")
        like, rng = next(iter(self.features.arrays.values())), self.rng if rng is None else rng
        num_features = self.num_features if num_features is None else num_features
        drawn = estimator.draw(self.dim, num_features, rng=rng, like=like, batch_shape=self._batch_shape)
        for name in self._buffer_names.values():
            delattr(self, name)
        self.rng = rng
        self._hold(drawn)

    def extra_repr(self) -> str:
        """Description of the features and options, for `print(module)`."""
        text = repr(self.features).removeprefix("FeatureMap(").removesuffix(")")
        text += f", dropout={self.dropout}" if self.dropout else ""
        for name, value in self._options.items():
            text += f", {name}={tuple(value.shape) if isinstance(value, torch.Tensor) else repr(value)}"
        return text

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        features = {prefix + name: getattr(self, name) for name in self._buffer_names.values()}
        if self._persistent and not any(name in state_dict for name in features):  # of a model that has none
            state_dict = {**state_dict, **features}
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "LinearAttention":
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = getattr(self, name)
            if moved.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, buffer.to(moved.device))
        return self


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    features: FeatureMap | LinearAttention | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> torch.Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, estimated in linear time with `features`, or without any.

    attn_mask : (..., 1, S), the same for every query: bool, True = take part, or floating numbers that are added to the
        logits. It may be combined with is_causal. Masks and biases of (L, S) pairs are refused.
    dropout_p : must be 0, since single weights are never computed.
    features : from `estimator.draw(..., like=query)`; or a `LinearAttention`, of which only the features are used. None
        with `method="clustered"` or `"compressed"`, which need nothing beforehand.
    dropout : probability of zero for each number of the output, in every call, as with `dropout_p`: give 0 in
        evaluation.
    options : other keywords of `randfeat.linear_attention`: decay, window, relative_bias, key_lengths, key_ends,
        causal_offset, cu_seqlens, method, ... With `method="clustered"` those of `randfeat.clustered_attention`
        (num_clusters, accuracy, ...), with `method="compressed"` those of `randfeat.compressed_attention` (num_keys,
        window, ...); their `attn_mask` is boolean.

    The output of a query whose keys are all masked is zero.

    >>> import randfeat as rf
    >>> q, k, v = torch.randn(3, 2, 8, 100, 16)
    >>> phi = rf.PositiveFeatures().draw(dim=16, num_features=64, rng=0, like=q)
    >>> padding = torch.arange(100) < torch.tensor([[100], [70]])
    >>> scaled_dot_product_attention(q, k, v, attn_mask=padding[:, None, None, :], features=phi).shape
    torch.Size([2, 8, 100, 16])
    >>> scaled_dot_product_attention(q, k, v, method="clustered", num_clusters=11).shape
    torch.Size([2, 8, 100, 16])
    """
    if dropout_p != 0:
        raise ValueError(
            f"dropout_p must be 0, got {dropout_p}: single weights are never computed; "
            f"dropout={dropout_p} is that of the outputs."
        )
    dropout = as_probability(dropout)
    if options.get("method") in METHODS:
        if features is not None:
            raise ValueError(f'method="{options["method"]}" has no features; leave out one of the two.')
        options |= {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        return dropped(sdpa_by(query, key, value, attn_mask, **options), dropout)
    if features is None:
        given = f", got method={options['method']!r}" if "method" in options else ""
        raise TypeError(
            "features is missing: a FeatureMap or a LinearAttention, or None with method="
            f'"clustered" or "compressed"{given}.'
        )
    mask: dict[str, Any] = {}
    if attn_mask is not None:
        kind, convert = ("key_bias", key_bias_of) if attn_mask.is_floating_point() else ("key_mask", key_mask_of)
        mask = {kind: convert(attn_mask, key.ndim, name="attn_mask")}
    phi = features.features if isinstance(features, LinearAttention) else features
    options |= {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    return dropped(linear_attention(query, key, value, phi, **mask, **options), dropout)


def dropped(result: Any, dropout: float) -> Any:
    """An output, or an output with a state, in which numbers of the output are zero with this probability."""
    if not dropout:
        return result
    output, *state = result if isinstance(result, tuple) else (result,)
    output = torch.nn.functional.dropout(output, dropout)
    return (output, *state) if state else output


def as_probability(dropout: Any) -> float:
    """The probability of zero for each number of an output."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be a probability, between 0 and 1, got {dropout!r}.")
    return float(dropout)
