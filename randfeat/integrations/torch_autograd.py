"""Linear attention for PyTorch whose backward pass stores only the inputs, by name."""

from typing import Any

from randfeat._hints import needs

try:
    import torch
except ImportError as error:
    raise ImportError(needs("torch_autograd", "PyTorch", "torch")) from error

from randfeat.attention.gradient import is_analytic, linear_attention_vjp
from randfeat.attention.inputs import in_one_dtype
from randfeat.attention.linear import linear_attention as randfeat_attention
from randfeat.attention.state import AttentionState
from randfeat.attention.torch.form import is_stated
from randfeat.maps import FeatureMap, check_feature_map

__all__ = ["linear_attention"]


def linear_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    features: FeatureMap,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: torch.Tensor | None = None,
    key_bias: torch.Tensor | None = None,
    enable_gqa: bool = False,
    initial_state: AttentionState | None = None,
    return_state: bool = False,
) -> Any:
    """`randfeat.linear_attention` of tensors, which keeps only its inputs for the backward pass wherever it can.

    With exponential features `randfeat.linear_attention` itself is one operation that stores query, key, value, mask
    and bias alone, O(L (d + dv)), and computes the analytic gradient from them: this is the same call. For other
    features with an analytic gradient (trigonometric ones), whose intermediate results PyTorch would store, O(L
    num_features), this function does the same; the features are then computed two more times.

    States, rows that require a gradient, and estimators without analytic gradient are differentiated by PyTorch itself,
    from what it stores, as in `randfeat.linear_attention`.

    >>> import randfeat as rf
    >>> q, k, v = torch.randn(3, 100, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    >>> phi = rf.TrigonometricFeatures().draw(dim=8, num_features=64, rng=0, like=q)
    >>> gradients = [torch.autograd.grad(attend(q, k, v, phi).sum(), (q, k, v))
    ...              for attend in (linear_attention, rf.linear_attention)]
    >>> all(torch.allclose(a, b, atol=1e-3) for a, b in zip(*gradients))
    True
    """
    check_feature_map(features)
    if not all(isinstance(x, torch.Tensor) for x in (query, key, value)):
        raise TypeError("query, key and value must be tensors; other arrays have randfeat.linear_attention_vjp.")
    options: dict[str, Any] = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    constants = [x for x in (key_bias, *features.arrays.values()) if isinstance(x, torch.Tensor)]
    if (
        is_stated(features)
        or not is_analytic(features)
        or initial_state is not None
        or return_state
        or any(x.requires_grad for x in constants)
    ):
        options |= {"initial_state": initial_state, "return_state": return_state}
        return randfeat_attention(query, key, value, features, key_mask=key_mask, key_bias=key_bias, **options)
    query, key, value = in_one_dtype(query, key, value)  # here, since the backward pass is not under autocast
    return FromInputs.apply(query, key, value, key_mask, key_bias, features, options)


class FromInputs(torch.autograd.Function):
    """The autograd function: linear attention with its analytic backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        query: Any, key: Any, value: Any, key_mask: Any, key_bias: Any, features: FeatureMap, options: dict
    ) -> Any:
        return randfeat_attention(query, key, value, features, key_mask=key_mask, key_bias=key_bias, **options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        *tensors, ctx.features, ctx.options = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple:
        query, key, value, key_mask, key_bias = ctx.saved_tensors
        options = {"key_mask": key_mask, "key_bias": key_bias, **ctx.options}
        return (*linear_attention_vjp(query, key, value, ctx.features, gradient, **options), None, None, None, None)
