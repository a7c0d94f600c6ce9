"""Random calls of attention, described: what is called, on which shapes, with which options. No arrays yet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["FUNCTIONS", "GATED", "SMOOTH", "Call", "random_calls"]

FUNCTIONS = ("linear_attention", "linear_attention_vjp", "exact attention", "state")
BORDERS, LONGEST, BORDER_SHARE = (0, 1, 1, 64, 64, 65, 257, 257, 300, 300, 2300), 700, 0.6
LEADS: tuple[tuple[int, ...], ...] = ((), (3,), (2, 4), (1, 2, 2))  # batch and heads of the queries
SMOOTH = ("positive", "hyperbolic", "trigonometric", "phases", "optimal positive", "dense", "centered", "balanced",
          "posterior", "gaussian", "spectral", "generalized")  # fmt: skip
OTHERS = ("relu", "elu", "arc-cosine", "sum", "product", "geometric", "control variate", "hybrid")
SLOW_EXACT = ("elu",)  # features of a kernel whose exact values are integrals
KERNELS = ("softmax", "gaussian", "matern", "activation", "polynomial")
RELATIONS = ("plain", "offset", "decay", "decay", "relative_bias", "window", "key_ends", "cu_seqlens")
PLAIN_SHARE = 0.25
GATED = ("number", "per head", "per position", "per feature")


@dataclass(frozen=True)
class Call:
    """One call. The arrays are drawn from `seed`; `options` are what the function is given beside them.

    lead, key_lead : the leading dimensions of queries and keys; heads are the last. features : of which estimator, or
    the kernel in exact attention. maps : "one", "per head" or "per key head".
    """

    seed: tuple[int, int]
    function: str
    features: str
    width: int
    dim: int
    value_dim: int
    lead: tuple[int, ...]
    key_lead: tuple[int, ...]
    num_queries: int
    num_keys: int
    dtype: str
    input_scale: float
    maps: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name of the case."""
        shapes = f"q={(*self.lead, self.num_queries, self.dim)} k={(*self.key_lead, self.num_keys, self.dim)}"
        options = " ".join(f"{name}={value}" for name, value in self.options.items())
        what = f"{self.function} {self.features} {self.width} {self.maps}"
        return f"call {self.seed[1]}: {what} {shapes} {self.dtype} x{self.input_scale:g} {options}"


def random_calls(num_calls: int, seed: int) -> Iterator[Call]:
    """The first calls of an endless list; each has a generator of its own, so that fewer calls are the same ones."""
    for index in range(num_calls):
        yield random_call(np.random.default_rng((seed, index)), (seed, index))


def random_call(rng: np.random.Generator, seed: tuple[int, int]) -> Call:
    """A call that the library allows; the functions take turns."""
    function = FUNCTIONS[seed[1] % len(FUNCTIONS)]
    features = pick(rng, names_for(function))
    lead = LEADS[rng.integers(len(LEADS))]
    grouped = len(lead) > 0 and lead[-1] % 2 == 0 and rng.random() < 0.4
    key_lead = (*lead[:-1], int(rng.choice([1, lead[-1] // 2]))) if grouped else lead
    num_queries, num_keys = length(rng), length(rng)
    if rng.random() < 0.5:
        num_queries = num_keys
    options: dict[str, Any] = {"enable_gqa": True} if grouped else {}
    if function != "state":
        options |= relation(rng, function, num_queries, num_keys)
        options |= masks(rng, options, len(lead) > 0)
        if len(lead) > 0 and rng.random() < 0.25:
            options["layout"] = "blhd"
    if options.get("decay") in GATED[2:] and num_queries > num_keys:  # every query is at the position of a key
        num_queries = num_keys
    if function.startswith("linear") and rng.random() < 0.7:
        options["num_threads"] = int(rng.integers(1, 3))
    if function == "linear_attention":
        options |= state_and_method(rng, options)
        if features in SLOW_EXACT:
            options["method"] = "linear"
            options.pop("window", None)
    if function == "linear_attention_vjp":
        options |= known_results(rng, options)
    return Call(
        seed=seed,
        function=function,
        features=features,
        width=int(rng.choice([8, 24, 64, 130])),
        dim=int(rng.choice([4, 8, 16])),
        value_dim=int(rng.choice([1, 5, 16])),
        lead=lead,
        key_lead=key_lead,
        num_queries=num_queries,
        num_keys=num_keys,
        dtype=pick(rng, ("float16", "float32", "float32", "float64")),
        input_scale=float(rng.choice([0.3, 1.0, 5.0, 30.0])),
        maps=maps_for(rng, function, lead, key_lead),
        options=options,
    )


def names_for(function: str) -> tuple[str, ...]:
    """The features, or kernels, that a function takes."""
    if function == "exact attention":
        return KERNELS
    return SMOOTH if function == "linear_attention_vjp" else SMOOTH + OTHERS


def maps_for(rng: np.random.Generator, function: str, lead: tuple[int, ...], key_lead: tuple[int, ...]) -> str:
    """One map for all heads, one for each, or one for each head of the keys; a state knows no other heads."""
    if not lead:
        return "one"
    grouped_state = function == "state" and lead != key_lead
    return pick(rng, ("one", "per key head") if grouped_state else ("one", "per head", "per key head"))


def pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    """One of several words."""
    return choices[int(rng.integers(len(choices)))]


def length(rng: np.random.Generator) -> int:
    """A number of positions, often at the border of a block or beyond the longest one."""
    return int(rng.choice(BORDERS) if rng.random() < BORDER_SHARE else rng.integers(LONGEST + 1))


def relation(rng: np.random.Generator, function: str, num_queries: int, num_keys: int) -> dict[str, Any]:
    """Random options that say which keys a query sees, and with what weight beside the kernel."""
    kinds = RELATIONS if function != "linear_attention_vjp" else ("plain", "offset", "cu_seqlens")
    kind = "plain" if rng.random() < PLAIN_SHARE else pick(rng, kinds)
    is_causal = {"is_causal": True}
    if kind == "offset":
        return is_causal | {"causal_offset": int(rng.choice([-70, -3, 5, 70, num_keys - num_queries]))}
    if kind == "decay":
        return is_causal | {"decay": pick(rng, GATED[:3] if function == "exact attention" else GATED)}
    options = is_causal if rng.random() < 0.5 else {}
    if kind == "window":
        return options | {"window": int(rng.choice([0, 1, 7, 80]))}
    if kind in ("relative_bias", "key_ends"):
        return options | {kind: pick(rng, ("shared", "per head"))}
    return options | ({kind: "shared" if num_queries == num_keys else "pair"} if kind == "cu_seqlens" else {})


def masks(rng: np.random.Generator, options: dict[str, Any], has_batch: bool) -> dict[str, Any]:
    """Random options that mask keys."""
    found: dict[str, Any] = {}
    if rng.random() < 0.3:
        found["key_mask"] = pick(rng, ("shared", "per head"))
    if rng.random() < 0.2 and "cu_seqlens" not in options:
        found["key_lengths"] = "per batch entry" if has_batch else "one"
    return found


def state_and_method(rng: np.random.Generator, options: dict[str, Any]) -> dict[str, Any]:
    """States where there can be one; else one of the three methods."""
    if rng.random() < 0.4 and not options.keys() & {"relative_bias", "cu_seqlens"}:
        return {"initial_state": "of earlier keys"} | ({"return_state": True} if rng.random() < 0.7 else {})
    method = pick(rng, ("linear", "linear", "auto", "exact"))
    return {"method": "auto" if method == "exact" and options.get("decay") == "per feature" else method}


def known_results(rng: np.random.Generator, options: dict[str, Any]) -> dict[str, Any]:
    """Random options that give results of the forward pass to the gradient."""
    found: dict[str, Any] = {}
    if rng.random() < 0.3 and "cu_seqlens" not in options:
        found["initial_state"] = "of earlier keys"
    if rng.random() < 0.5:
        found["output"] = "known"
    if rng.random() < 0.5 and not options.keys() & {"is_causal", "cu_seqlens"}:
        found["final_state"] = "known"
    return found
