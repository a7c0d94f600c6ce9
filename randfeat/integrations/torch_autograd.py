"""Linear attention for PyTorch whose backward pass stores only the inputs, not the features of the sequence."""

from typing import Any

import torch

from randfeat.attention.gradient import check_analytic, check_stateless, linear_attention_vjp
from randfeat.attention.inputs import in_one_dtype
from randfeat.attention.linear import linear_attention as generic_attention
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap

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
    enable_gqa: bool = False,
    initial_state: AttentionState | None = None,
    return_state: bool = False,
) -> torch.Tensor:
    """`randfeat.linear_attention` of tensors, with `linear_attention_vjp` as its backward pass.

    The forward pass gives the same numbers. Between the passes only query, key, value and the mask are stored,
    O(L (d + dv)). Automatic differentiation of the generic function stores the features and more, O(L num_features).
    The price here is that the features are computed two more times. Second derivatives differentiate the backward pass,
    and then store its intermediate results. `torch.func.grad` and `vmap` work.

    Limits: states (`initial_state`, `return_state`), rows that require a gradient, and estimators without analytic
    gradients raise ValueError; forward-mode derivatives do not work. For all of these use
    `randfeat.linear_attention`, which PyTorch differentiates itself.

    >>> import randfeat as rf
    >>> q, k, v = torch.randn(3, 100, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    >>> phi = rf.PositiveFeatures().draw(dim=8, num_features=64, rng=0, like=q)
    >>> gradients = [torch.autograd.grad(attend(q, k, v, phi, is_causal=True).sum(), (q, k, v))
    ...              for attend in (linear_attention, rf.linear_attention)]
    >>> all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*gradients))
    True
    """
    check_stateless(features, initial_state, return_state)
    if not all(isinstance(x, torch.Tensor) for x in (query, key, value)):
        raise TypeError("query, key and value must be tensors; other arrays have randfeat.linear_attention_vjp.")
    if any(array.requires_grad for array in features.arrays.values() if isinstance(array, torch.Tensor)):
        raise ValueError("the rows of features require a gradient, which only randfeat.linear_attention gives.")
    check_analytic(features)
    query, key, value = in_one_dtype(query, key, value)  # here, since the backward pass is not under autocast
    options = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    return LinearAttention.apply(query, key, value, key_mask, features, options)


class LinearAttention(torch.autograd.Function):
    """The autograd function: linear attention with its analytic backward pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(query: Any, key: Any, value: Any, key_mask: Any, features: FeatureMap, options: dict) -> Any:
        return generic_attention(query, key, value, features, key_mask=key_mask, **options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        *tensors, ctx.features, ctx.options = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple:
        query, key, value, key_mask = ctx.saved_tensors
        gradients = linear_attention_vjp(query, key, value, ctx.features, gradient, key_mask=key_mask, **ctx.options)
        return (*gradients, None, None, None)
