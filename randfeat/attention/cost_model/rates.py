"""AttentionCosts: seconds of exact and of linear attention, predicted from shapes, dtype and array library."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from randfeat._array import Array, as_floating, dtype_name, library_of
from randfeat.attention.cost_model.measurement import measured_rates, seconds
from randfeat.attention.relations.work import Work


@dataclass(frozen=True)
class AttentionCosts:
    """Rates in seconds, from which the time of attention is predicted: the sum of each rate times its number of uses.

    exact_call, linear_call : of a call; of each sequence, where sequences are packed.
    exact_pair : of each pair of a query and a key: its exponential, maximum and sum.
    exact_pair_dim : of each pair and coordinate of key and value, d + dv of them.
    exact_pass : of each pair and pass over it, two for a relation of queries and keys (causal, ...), one for a mask.
    linear_head : of each head.
    feature : of each feature of each query and key.
    feature_dim : of each such feature and coordinate of key and value.
    causal_feature : of each such feature where attention is causal, beside `feature`.
    transform : of each number of the fast Fourier transforms of `relative_bias` and halving of their length.
    generic, generic_causal : not seconds, but the time of the generic pass over that of the fast one, for features and
        relations that have no fast one.
    compressed_call : of clustered and compressed attention, for each key head, or each chunk of a causal stream.
    compressed_pair : of each pair of a query or key with a center, a row or a reference: comparison, exponential.
    compressed_pair_dim : of each such pair and coordinate. `measure` keeps these three in the proportion to exact
        attention that they have in the library.

    The model is rough. The length at which linear attention becomes faster can be wrong by up to half for full
    attention, and by a factor of two for causal attention, with JAX of four. All features are assumed to cost as much
    as positive features. Rates differ between machines; the rates in the library were measured on one core of one
    machine.

    >>> costs = AttentionCosts.of("numpy", "float32")
    >>> costs.exact_pair < 1e-7
    True
    """

    exact_call: float
    exact_pair: float
    exact_pair_dim: float
    exact_pass: float
    linear_call: float
    linear_head: float
    feature: float
    feature_dim: float
    causal_feature: float
    transform: float
    generic: float = 1.0
    generic_causal: float = 1.0
    compressed_call: float = 1.2e-3
    compressed_pair: float = 1.9e-9
    compressed_pair_dim: float = 4.9e-11

    def __post_init__(self) -> None:
        for rate in fields(self):
            number = getattr(self, rate.name)
            if isinstance(number, bool) or not isinstance(number, float | int | np.floating):
                raise TypeError(f"{rate.name} must be a number of seconds, got {number!r}.")
            if not 0 <= number < math.inf:
                raise ValueError(f"{rate.name} must be finite and not negative, got {number!r}.")
            object.__setattr__(self, rate.name, float(number))

    def seconds(self, work: Work) -> float:
        """The predicted time of some work."""
        return seconds(vars(self), work)

    @classmethod
    def of(cls, library: str, dtype: str) -> "AttentionCosts":
        """The rates in the library, for `"numpy"`, `"torch"` or `"jax"`, and `"float32"` or `"float64"`.

        For all other libraries, dtypes and devices these are the rates of PyTorch on a CPU. Both methods are then
        products of matrices, and only the ratio of their times matters. `measure` is more accurate.
        """
        return SHIPPED.get((library, dtype), SHIPPED["torch", "float64" if dtype == "float64" else "float32"])

    @classmethod
    def like(cls, array: Array) -> "AttentionCosts":
        """The rates in the library for arrays of this array library and dtype."""
        dtype = dtype_name(array.dtype)
        return cls.of(library_of(array), "float64" if dtype == "float64" else "float32")

    @classmethod
    def measure(cls, like: Any, dim: int, value_dim: int | None = None, num_features: int = 256) -> "AttentionCosts":
        """The rates of this machine, for arrays of the library, dtype and device of `like`.

        dim, value_dim, num_features : the sizes at which the rates should be accurate; value_dim is dim by default.
            This takes about a second. It times interleaved calls of 1 to 10 ms each, and fits the rates to the medians
            by nonnegative least squares. JAX compiles each call first, which takes longer.
        """
        value_dim = dim if value_dim is None else value_dim
        found = cls(**measured_rates(like, dim, value_dim, num_features))
        shipped = cls.like(as_floating(like, "like"))
        dims = dim + value_dim
        speed = (found.exact_pair + dims * found.exact_pair_dim) / (shipped.exact_pair + dims * shipped.exact_pair_dim)
        return replace(found, **{name: speed * getattr(shipped, name) for name in COMPRESSED})


COMPRESSED = ("compressed_call", "compressed_pair", "compressed_pair_dim")

# In the order of the fields, on one core, at d = 64 and 256 features: medians that
# `python -m experiments.benchmarks crossover` measured on an idle machine, and prints in this form.
SHIPPED: dict[tuple[str, str], AttentionCosts] = {
    ("numpy", "float32"): AttentionCosts(
        1.3e-4, 8.3e-10, 2.3e-11, 1.6e-9, 7.3e-4, 9.1e-5, 0, 1.8e-11, 2.3e-9, 9.8e-11, 1.3, 2.6, 8.4e-4, 1.3e-9, 3.4e-11
    ),
    ("numpy", "float64"): AttentionCosts(
        1.5e-4, 1.6e-9, 4e-11, 1.7e-9, 8.5e-4, 8.1e-5, 0, 3.5e-11, 2.6e-9, 8.7e-11, 1.4, 2.7, 9.6e-4, 2.4e-9, 6.2e-11
    ),
    ("torch", "float32"): AttentionCosts(
        1.7e-4, 8.5e-10, 2.3e-11, 1.1e-9, 9e-4, 5.7e-5, 0, 1.5e-11, 2.1e-9, 0, 1.7, 3.1, 7.8e-4, 1.2e-9, 3.2e-11
    ),
    ("torch", "float64"): AttentionCosts(
        1.8e-4, 3e-9, 4.1e-11, 1e-9, 1e-3, 7.3e-5, 0, 3e-11, 3.1e-9, 0, 1.9, 3.4, 9.3e-4, 2.4e-9, 6.1e-11
    ),
    ("jax", "float32"): AttentionCosts(
        8.3e-5, 3.2e-10, 8.6e-12, 1.1e-10, 1.4e-4, 0, 1.1e-9, 7.9e-12, 3.6e-9, 7.1e-10, 1.1, 1, 4.8e-4, 7.6e-10, 2e-11
    ),
    ("jax", "float64"): AttentionCosts(
        7.8e-5, 1.1e-9, 1.7e-11, 2e-10, 1.5e-4, 1.2e-5, 1.6e-9, 2e-11, 8.6e-9, 4.9e-10, 1.1, 1, 5.9e-4, 1.5e-9, 4e-11
    ),
}
