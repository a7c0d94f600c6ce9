"""An attention layer with its projections, `attend(x Wq, x Wk, x Wv) Wo`, forward and backward, on every backend.

PyTorch and JAX differentiate the layer themselves; NumPy and CuPy have the backward pass that is written here.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

import randfeat as rf
from experiments.backends import from_host

EXACT, WHOLE, IDENTITY = "exact", "exact, whole matrix", "returns V"
FORWARD, BACKWARD = "forward", "forward and backward"
BLOCK = 512  # queries at a time, as in `rf.softmax_attention`


def linear_name(num_features: int, *, is_causal: bool) -> str:
    """What linear attention is called in the tables."""
    return f"{'causal' if is_causal else 'linear'}, m = {num_features}"


@dataclass(frozen=True, eq=False)
class Layer:
    """One head of one layer for one input.

    method : one of the names above. x (L, d), cotangent (L, d), weights: four matrices (d, d), all of one backend, in
    float32. phi : for linear attention.
    """

    method: str
    backend: str
    x: Any
    cotangent: Any
    weights: tuple[Any, Any, Any, Any]
    phi: rf.FeatureMap | None

    @classmethod
    def of(cls, method: str, length: int, dim: int, backend: str, *, rng: np.random.Generator) -> "Layer":
        """A layer with random input and weights, whose logits have a deviation of about a half."""
        x, cotangent = rng.standard_normal((2, length, dim), dtype=np.float32)
        size = (0.7, 0.7, 1.0, 1.0)
        matrices = [s / math.sqrt(dim) * rng.standard_normal((dim, dim), dtype=np.float32) for s in size]
        x, cotangent, *weights = (from_host(array, backend) for array in (x, cotangent, *matrices))
        phi = None
        if method not in (EXACT, WHOLE, IDENTITY):
            num_features = int(method.rpartition(" ")[2])
            phi = rf.PositiveFeatures().draw(dim, num_features, rng=rng, like=x)
        return cls(method, backend, x, cotangent, tuple(weights), phi)

    @property
    def is_causal(self) -> bool:
        """Whether queries see earlier keys only."""
        return self.method.startswith("causal")

    def attend(self, query: Any, key: Any, value: Any) -> Any:
        if self.method == IDENTITY:
            return value
        if self.phi is not None:
            return linear_attention_of(self.backend)(query, key, value, self.phi, is_causal=self.is_causal)
        if self.method == WHOLE:
            return whole_attention(query, key, value)
        if self.backend == "torch":
            from torch.nn.functional import scaled_dot_product_attention

            four = (x[None, None] for x in (query, key, value))  # with fewer dimensions the whole matrix is made
            return scaled_dot_product_attention(*four)[0, 0]
        return rf.softmax_attention(query, key, value)

    def attend_vjp(self, query: Any, key: Any, value: Any, cotangent: Any) -> tuple[Any, Any, Any]:
        """The gradients of `Σ cotangent · attend(query, key, value)`, for NumPy and CuPy."""
        if self.phi is not None:
            return rf.linear_attention_vjp(query, key, value, self.phi, cotangent, is_causal=self.is_causal)
        if self.method == IDENTITY:
            return 0 * query, 0 * key, cotangent
        block = len(query) if self.method == WHOLE else BLOCK
        return softmax_attention_vjp(query, key, value, cotangent, block=block)

    def call(self, direction: str) -> Callable[[], object]:
        """The layer as a call without arguments that returns when the numbers are there."""
        if self.backend == "torch":
            return functools.partial(torch_pass, self, direction)
        if self.backend == "jax":
            return functools.partial(jax_pass, self.compiled(direction), self.arguments(direction))
        if self.backend == "cupy":
            return functools.partial(cupy_pass, self, direction)
        return functools.partial(host_pass, self, direction)

    def arguments(self, direction: str) -> tuple[Any, ...]:
        return (self.x, *self.weights) if direction == FORWARD else (self.cotangent, self.x, *self.weights)

    @functools.cache  # noqa: B019  layers are few, and kept anyway
    def compiled(self, direction: str) -> Any:
        import jax

        def forward(x: Any, *weights: Any) -> Any:
            return projected(self, x, weights)

        def backward(cotangent: Any, *arguments: Any) -> Any:
            output, pull_back = jax.vjp(forward, *arguments)
            return output, pull_back(cotangent)

        function = jax.jit(forward if direction == FORWARD else backward)
        return function.lower(*self.arguments(direction)).compile()


def projected(layer: Layer, x: Any, weights: Any) -> Any:
    """The layer in any array library."""
    query, key, value, output = weights
    return layer.attend(x @ query, x @ key, x @ value) @ output


def linear_attention_of(backend: str) -> Callable[..., Any]:
    """Linear attention as the backend differentiates it best: without keeping the features."""
    if backend == "torch":
        from randfeat.integrations.torch_autograd import linear_attention

        return linear_attention
    if backend == "jax":
        from randfeat.integrations.jax_autograd import linear_attention as attend

        return attend
    return rf.linear_attention


def whole_attention(query: Any, key: Any, value: Any) -> Any:
    """`softmax(q kᵀ/√d) v` as it is written, with the matrix of all weights in memory."""
    xp = array_namespace(query)
    logits = query @ key.T / math.sqrt(query.shape[-1])
    weights = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return (weights / xp.sum(weights, axis=-1, keepdims=True)) @ value


def softmax_attention_vjp(
    query: Any, key: Any, value: Any, cotangent: Any, *, block: int = BLOCK
) -> tuple[Any, Any, Any]:
    """The gradients of `Σ cotangent · softmax(q kᵀ/√d) v`: (L, d) four times -> (L, d) three times; NumPy, CuPy.

    With P the weights and `dP = cotangent vᵀ`, the logits have the gradient `dS = P ∘ (dP - rowsum(P ∘ dP))`. The
    weights are computed again, for `block` queries at a time.
    """
    xp = array_namespace(query)
    scale = 1 / math.sqrt(query.shape[-1])
    query_gradient, key_gradient, value_gradient = (xp.zeros_like(x) for x in (query, key, value))
    for start in range(0, len(query), block):
        rows = slice(start, start + block)
        logits = scale * (query[rows] @ key.T)
        weights = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
        weights /= xp.sum(weights, axis=-1, keepdims=True)
        value_gradient += weights.T @ cotangent[rows]
        change = cotangent[rows] @ value.T
        change -= xp.sum(weights * change, axis=-1, keepdims=True)
        change *= scale * weights
        query_gradient[rows] = change @ key
        key_gradient += change.T @ query[rows]
    return query_gradient, key_gradient, value_gradient


def host_pass(layer: Layer, direction: str) -> tuple[Any, ...]:
    """Output, and for the backward pass the gradients in the input and the four matrices."""
    if direction == FORWARD:
        return (projected(layer, layer.x, layer.weights),)
    query, key, value = (layer.x @ matrix for matrix in layer.weights[:3])
    attended = layer.attend(query, key, value)
    output = attended @ layer.weights[3]
    pulled = layer.attend_vjp(query, key, value, layer.cotangent @ layer.weights[3].T)
    pairs = list(zip(pulled, layer.weights[:3], strict=True))
    input_gradient = pairs[0][0] @ pairs[0][1].T
    for gradient, matrix in pairs[1:]:
        input_gradient += gradient @ matrix.T
    matrices = [layer.x.T @ gradient for gradient in pulled]
    return output, input_gradient, *matrices, attended.T @ layer.cotangent


def cupy_pass(layer: Layer, direction: str) -> tuple[Any, ...]:
    """The same on the device, until it is done."""
    import cupy

    result = host_pass(layer, direction)
    cupy.cuda.get_current_stream().synchronize()
    return result


def torch_pass(layer: Layer, direction: str) -> tuple[Any, ...]:
    """Output, and gradients by automatic differentiation."""
    import torch

    if direction == FORWARD:
        with torch.inference_mode():
            return (projected(layer, layer.x, layer.weights),)
    leaves = [array.detach().requires_grad_() for array in (layer.x, *layer.weights)]
    output = projected(layer, leaves[0], leaves[1:])
    gradients = torch.autograd.grad(output, leaves, layer.cotangent, allow_unused=True)
    return output.detach(), *(
        torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, gradients, strict=True)
    )


def jax_pass(compiled: Any, arguments: tuple[Any, ...]) -> Any:
    """The compiled layer, until it is done."""
    import jax

    result = jax.block_until_ready(compiled(*arguments))
    if isinstance(result, tuple):
        output, gradients = result
        return output, *gradients
    return (result,)
