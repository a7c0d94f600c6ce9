"""Calls of attention, performed: the arrays that a description stands for, and what the library answers."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import randfeat as rf
from experiments.benchmarks.same_numbers.calls import Call
from experiments.benchmarks.same_numbers.catalogue import draw_nearest
from experiments.benchmarks.same_numbers.decisions import fit
from experiments.benchmarks.same_numbers.digests import attempt_with_message
from randfeat import estimators, kernels

__all__ = ["perform"]

EARLIER = 33  # keys that an initial state has seen
SCALE = 0.2  # of the logits, where a kernel takes one
ESTIMATORS: dict[str, Callable[[int], Any]] = {
    "positive": lambda dim: estimators.PositiveFeatures(),
    "hyperbolic": lambda dim: estimators.HyperbolicFeatures(),
    "trigonometric": lambda dim: estimators.TrigonometricFeatures(),
    "phases": lambda dim: estimators.TrigonometricFeatures(variant="phase"),
    "optimal positive": lambda dim: estimators.OptimalPositiveFeatures(exponent=-0.05),
    "dense": lambda dim: estimators.DenseExponentialFeatures(
        exponents=np.linspace(-0.1, 0.02, dim), coupling="independent"
    ),
    "centered": lambda dim: estimators.CenteredFeatures(query_shift=np.full(dim, 0.2), key_shift=np.full(dim, -0.1)),
    "balanced": lambda dim: estimators.BalancedFeatures(matrix=np.eye(dim) + np.tri(dim, k=-1) / 8),
    "gaussian": lambda dim: estimators.PositiveFeatures(kernels.GaussianKernel(1.2)),
    "spectral": lambda dim: estimators.SpectralFeatures(kernels.MaternKernel(smoothness=2.5)),
    "generalized": lambda dim: estimators.GeneralizedExponentialFeatures(parameter=-0.03 + 0.04j),
    "relu": lambda dim: estimators.ActivationFeatures(kernels.ActivationKernel("relu", offset=0.001)),
    "elu": lambda dim: estimators.ActivationFeatures(kernels.ActivationKernel("elu_plus_one")),
    "arc-cosine": lambda dim: estimators.ArcCosineFeatures(),
    "sum": lambda dim: estimators.PositiveFeatures() + estimators.TrigonometricFeatures(kernels.GaussianKernel(1.5)),
    "product": lambda dim: (
        2.0 * estimators.PositiveFeatures() * estimators.HyperbolicFeatures(kernels.SoftmaxKernel(0.5))
    ),
    "geometric": lambda dim: estimators.GeometricFeatures(),
    "control variate": lambda dim: estimators.ControlVariateFeatures(),
    "hybrid": lambda dim: estimators.AngularHybridFeatures(num_signs=1),
}
KERNELS: dict[str, Any] = {
    "softmax": kernels.SoftmaxKernel(),
    "gaussian": kernels.GaussianKernel(1.2),
    "matern": kernels.MaternKernel(smoothness=2.5),
    "activation": kernels.ActivationKernel("relu", offset=0.1),
    "polynomial": kernels.PolynomialKernel(degree=2, offset=0.5),
}


def perform(call: Call) -> Any:
    """The numbers of one call, or its error with the beginning of its message."""
    return attempt_with_message(lambda: Performance(call).result())


class Performance:
    """The arrays of one call."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.rng = np.random.default_rng((*call.seed, 1))
        self.query = self.normal(*call.lead, call.num_queries, call.dim, scale=call.input_scale)
        self.key = self.normal(*call.key_lead, call.num_keys, call.dim, scale=call.input_scale)
        self.value = self.normal(*call.key_lead, call.num_keys, call.value_dim)

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Normal numbers in the dtype of the call."""
        return (scale * self.rng.standard_normal(shape)).astype(self.call.dtype)

    def result(self) -> Any:
        """The result of the call."""
        functions = {
            "linear_attention": self.linear,
            "linear_attention_vjp": self.gradients,
            "exact attention": self.exact,
            "state": self.states,
        }
        return functions[self.call.function]()

    @functools.cached_property
    def features(self) -> Any:
        """The map, or a map for each head."""
        call = self.call
        heads = {"one": (), "per head": call.lead[-1:], "per key head": call.key_lead[-1:]}[call.maps]
        if call.features == "posterior":
            query, key = self.rng.standard_normal((2, *heads, 50, call.dim))
            estimator = fit({"posterior"}, query, key, num_features=call.width, scale=SCALE, rng=0)
        else:
            estimator = ESTIMATORS[call.features](call.dim)
        return draw_nearest(estimator, call.dim, call.width, rng=call.seed, like=self.query, batch_shape=heads)

    def scale_for(self, kernel: Any) -> dict[str, Any]:
        """The default half of the time, where there is one: for the softmax kernel alone."""
        if kernel != kernels.SoftmaxKernel():
            return {"scale": 1.0}
        return {} if self.call.seed[1] % 8 < 4 else {"scale": SCALE}

    def options(self) -> dict[str, Any]:
        """The options with their arrays."""
        make = {
            "key_mask": self.key_mask,
            "key_lengths": self.key_lengths,
            "decay": self.decay,
            "relative_bias": self.relative_bias,
            "key_ends": self.key_ends,
            "cu_seqlens": self.cu_seqlens,
        }
        return {name: make[name](kind) if name in make else kind for name, kind in self.call.options.items()}

    def feature_options(self) -> dict[str, Any]:
        """The options of attention by features: with the scale, and with the state after earlier keys."""
        scale = self.scale_for(self.features.estimator.kernel)
        state = {"initial_state": self.earlier_state(scale)} if "initial_state" in self.call.options else {}
        return self.options() | scale | state

    def key_mask(self, kind: str) -> np.ndarray:
        """About four keys of five; the first keys of the first head are absent, so that some query may see none."""
        shape = (self.call.num_keys,) if kind == "shared" else (*self.call.key_lead, self.call.num_keys)
        mask = self.rng.random(shape) < 0.8
        mask.reshape(-1)[:3] = False
        return mask

    def key_lengths(self, kind: str) -> Any:
        """Lengths from none to all."""
        shape = self.call.key_lead[:1] if kind == "per batch entry" else ()
        return self.rng.integers(self.call.num_keys + 1, size=shape)

    def decay(self, kind: str) -> Any:
        """Factors from 0.8 to 1."""
        if kind == "number":
            return 0.97
        if kind == "per head":
            return self.rng.uniform(0.8, 1.0, self.call.lead[-1:])
        gates = self.features.num_features if kind == "per feature" else 1
        return self.rng.uniform(0.8, 1.0, (*self.call.key_lead, self.call.num_keys, gates))

    def relative_bias(self, kind: str) -> np.ndarray:
        """Normal numbers by relative position."""
        shape = (max(self.call.num_queries + self.call.num_keys - 1, 0),)
        return self.rng.standard_normal(shape if kind == "shared" else (*self.call.lead[-1:], *shape))

    def key_ends(self, kind: str) -> np.ndarray:
        """Ends from 0 to the number of keys, in any order."""
        shape = (self.call.num_queries,)
        return self.rng.integers(
            self.call.num_keys + 1, size=shape if kind == "shared" else (*self.call.lead[-1:], *shape)
        )

    def cu_seqlens(self, kind: str) -> Any:
        """Three sequences, some of which may be empty."""

        def offsets(length: int) -> list[int]:
            return [0, *sorted(self.rng.integers(length + 1, size=2).tolist()), length]

        queries = offsets(self.call.num_queries)
        return queries if kind == "shared" else (queries, offsets(self.call.num_keys))

    def swapped(self, x: np.ndarray) -> np.ndarray:
        """An array in the layout of the call."""
        return np.ascontiguousarray(np.swapaxes(x, -2, -3)) if self.call.options.get("layout") == "blhd" else x

    def inputs(self) -> tuple[Any, Any, Any]:
        """Queries, keys and values in the layout of the call."""
        return self.swapped(self.query), self.swapped(self.key), self.swapped(self.value)

    def earlier_state(self, scale: dict[str, Any]) -> Any:
        """The state after keys that come before those of the call."""
        call = self.call
        key = self.normal(*call.key_lead, EARLIER, call.dim, scale=call.input_scale)
        value = self.normal(*call.key_lead, EARLIER, call.value_dim)
        options = scale | {"enable_gqa": "enable_gqa" in call.options, "return_state": True, "num_threads": 1}
        return rf.linear_attention(self.query, key, value, self.features, **options)[1]

    def linear(self) -> Any:
        """The output, and the state where it is asked for."""
        options = self.feature_options()
        found = rf.linear_attention(*self.inputs(), self.features, **options)
        if not options.get("return_state"):
            return {"output": found}
        return {"output": found[0], "state": sums_of(found[1])}

    def gradients(self) -> Any:
        """Gradients of queries, keys and values."""
        options = self.feature_options()
        known = {name: options.pop(name, None) for name in ("output", "final_state")}
        forward = functools.partial(rf.linear_attention, *self.inputs(), self.features, **options)
        if "cu_seqlens" in options:
            output, state = forward(), None
        else:
            output, state = forward(return_state=True)
        results = {"output": output, "final_state": state}
        options |= {name: results[name] for name, word in known.items() if word is not None}
        gradient = self.rng.standard_normal(output.shape).astype(output.dtype)
        query, key, value = self.inputs()
        found = rf.linear_attention_vjp(query, key, value, self.features, gradient, **options)
        return dict(zip(("query", "key", "value"), found, strict=True))

    def exact(self) -> Any:
        """The output with the exact kernel."""
        kernel = KERNELS[self.call.features]
        options = self.options() | self.scale_for(kernel)
        if kernel == kernels.SoftmaxKernel():
            return {"output": rf.softmax_attention(*self.inputs(), **options)}
        return {"output": rf.kernel_attention(*self.inputs(), kernel, **options)}

    def states(self) -> Any:
        """Keys appended in two parts, the parts merged, what was seen faded; read by the first queries."""
        call, phi = self.call, self.features
        query = self.query[..., : call.key_lead[-1], :, :] if call.lead else self.query
        cut = int(self.rng.integers(call.num_keys + 1))
        before, after = (
            (phi.keys(self.key[..., part, :]), self.value[..., part, :]) for part in (slice(0, cut), slice(cut, None))
        )
        empty = rf.AttentionState.empty(phi.num_features, call.value_dim, like=self.value)
        first = empty.append(*before)
        merged = first.decay(0.5).merge(empty.append(*after))
        return {
            "merged": sums_of(merged),
            "streamed": sums_of(first.append(*after)),
            "read": merged.read(phi.queries(query)),
        }


def sums_of(state: Any) -> dict[str, np.ndarray]:
    """The sums and scales of a state."""
    return {"log_max": state.log_max, "weighted": state.weighted, "total": state.total}
