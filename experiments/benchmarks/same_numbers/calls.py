"""Random calls of attention: each is described by its attributes, and performed with arrays drawn after them."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import randfeat as rf
from experiments.benchmarks.same_numbers.catalogue import all_estimators, all_kernels, draw_nearest

BORDERS, LONGEST, BORDER_SHARE = (0, 1, 1, 64, 64, 65, 257, 257, 300, 300, 2300), 700, 0.6
LEADS: tuple[tuple[int, ...], ...] = ((), (3,), (2, 4), (1, 2, 2))  # batch and heads of the queries
EARLIER = 33  # keys that an initial state has seen
SCALE = 0.2  # of the logits, where a kernel takes one
SMOOTH = ("PositiveFeatures", "HyperbolicFeatures", "TrigonometricFeatures", "trigonometric, phases",
          "OptimalPositiveFeatures", "DenseExponentialFeatures", "GeneralizedExponentialFeatures",
          "CenteredFeatures", "BalancedFeatures", "PosteriorFeatures", "positive of a gaussian",
          "SpectralFeatures")  # fmt: skip
OTHERS = ("activation, relu", "activation, elu", "ArcCosineFeatures", "sum, shares", "product, scaled",
          "GeometricFeatures", "ControlVariateFeatures", "AngularHybridFeatures")  # fmt: skip
SLOW_EXACT = ("activation, elu",)  # exact values of the kernel are integrals
KERNELS = ("SoftmaxKernel", "gaussian of length 1.2", "matern 0.8", "activation relu", "polynomial of degree 3")
RELATIONS: dict[str, tuple[Any, ...]] = {
    "causal_offset": (-70, -3, 5, 70, "to the last key"),
    "cu_seqlens": ("shared", "pair"),
    "decay": ("number", "per head", "per position", "per feature"),
    "relative_bias": ("shared", "per head"),
    "window": (0, 1, 7, 80),
    "key_ends": ("shared", "per head"),
}
"""What the option can be; a word stands for an array. Gradients know the first two."""
ATTENTION, GRADIENT, EXACT = "linear_attention", "linear_attention_vjp", "exact attention"
FEATURES = {ATTENTION: SMOOTH + OTHERS, GRADIENT: SMOOTH, EXACT: KERNELS, "state": SMOOTH + OTHERS}
OPTIONS: tuple[tuple[str, tuple[Any, ...], float, tuple[str, ...], set[str]], ...] = (
    ("key_mask", ("shared", "per head"), 0.3, (ATTENTION, GRADIENT, EXACT), set()),
    ("key_lengths", ("per batch entry",), 0.2, (ATTENTION, GRADIENT, EXACT), {"cu_seqlens"}),
    ("layout", ("blhd",), 0.25, (ATTENTION, GRADIENT, EXACT), set()),
    ("num_threads", (1, 2), 0.7, (ATTENTION, GRADIENT), set()),
    ("initial_state", ("of earlier keys",), 0.4, (ATTENTION, GRADIENT), {"cu_seqlens", "relative_bias"}),
    ("return_state", (True,), 0.3, (ATTENTION,), {"cu_seqlens", "relative_bias"}),
    ("method", ("linear", "linear", "auto", "exact"), 1.0, (ATTENTION,), {"initial_state", "return_state"}),
    ("output", ("known",), 0.5, (GRADIENT,), set()),
    ("final_state", ("known",), 0.5, (GRADIENT,), {"cu_seqlens", "is_causal"}),
)
"""What else can be, with its share of the calls of these functions, where none of the last stands before it."""


def random_calls(num_calls: int, seed: int) -> Iterator["Call"]:
    """The first calls of an endless list; each has a generator of its own, so that fewer calls are the same ones."""
    return (Call(index, seed) for index in range(num_calls))


class Call:
    """A call that the library allows; the functions take turns, and so do the features of each.

    lead, key_lead : the leading dimensions of queries and keys; heads are the last. features : of which estimator, or
    the kernel in exact attention. maps : "one", "per head" or "per key head". options : beside the arrays, in words.
    """

    def __init__(self, index: int, seed: int) -> None:
        self.index, self.seed, self.rng = index, seed, np.random.default_rng((seed, index))
        turn, which = divmod(index, len(FEATURES))
        self.function, names = list(FEATURES.items())[which]
        self.features = names[turn % len(names)]
        self.dim, self.value_dim, self.width = map(self.pick, ((4, 8, 16), (1, 5, 16), (8, 24, 64, 130)))
        if self.function != EXACT:
            self.dim = all_estimators()[self.features].parameter_dim or self.dim
        self.lead = self.key_lead = self.pick(LEADS)
        self.is_grouped = len(self.lead) > 0 and self.lead[-1] % 2 == 0 and self.rng.random() < 0.4
        if self.is_grouped:
            self.key_lead = (*self.lead[:-1], self.pick((1, self.lead[-1] // 2)))
        self.num_queries, self.num_keys = self.length(), self.length()
        if self.rng.random() < 0.5:
            self.num_queries = self.num_keys
        self.dtype: str = self.pick(("float16", "float32", "float32", "float64"))
        self.input_scale: float = self.pick((0.3, 1.0, 5.0, 30.0))
        self.options = self.random_options() if self.function != "state" else {}
        self.maps: str = self.pick(("one", "per head", "per key head") if self.lead else ("one",))
        if self.function == "state" and self.maps == "per head":  # a state knows the heads of the keys only
            self.maps = "per key head"

    @property
    def title(self) -> str:
        shapes = f"q={(*self.lead, self.num_queries, self.dim)} k={(*self.key_lead, self.num_keys, self.dim)}"
        options = " ".join(f"{name}={value}" for name, value in self.options.items())
        what = f"{self.function} {self.features} {self.width} {self.maps}"
        return f"call {self.index}: {what} {shapes} {self.dtype} x{self.input_scale:g} {options}"

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def length(self) -> int:  # often at the border of a block or beyond the longest one
        return self.pick(BORDERS) if self.rng.random() < BORDER_SHARE else int(self.rng.integers(LONGEST + 1))

    def random_options(self) -> dict[str, Any]:
        """A relation of queries to keys, and what may stand beside it."""
        options: dict[str, Any] = {"enable_gqa": True} if self.is_grouped else {}
        relation = self.pick(["plain", *RELATIONS, "decay"][: 3 if self.function == GRADIENT else None])
        if relation in ("causal_offset", "decay") or self.rng.random() < 0.5:
            options["is_causal"] = True
        if relation != "plain":
            options[relation] = self.pick(RELATIONS[relation])
        if options.get("cu_seqlens") == "shared":
            self.num_queries = self.num_keys
        for name, words, share, functions, excluding in OPTIONS:
            allowed = self.function in functions and not options.keys() & excluding and (self.lead or name != "layout")
            if allowed and self.rng.random() < share:
                options[name] = self.pick(words)
        if options.get("decay") == "per feature" and (self.function == EXACT or options.get("method") == "exact"):
            options["decay"] = "per position"
        if options.get("decay") in ("per position", "per feature"):  # every query is at the position of a key
            self.num_queries = min(self.num_queries, self.num_keys)
        if self.function == ATTENTION and self.features in SLOW_EXACT:
            options.pop("window", None)
            options["method"] = "linear"
        return options

    def perform(self) -> dict[str, Any]:
        self.rng = np.random.default_rng((self.seed, self.index, 1))
        self.query = self.normal(*self.lead, self.num_queries, self.dim, scale=self.input_scale)
        self.key = self.normal(*self.key_lead, self.num_keys, self.dim, scale=self.input_scale)
        self.value = self.normal(*self.key_lead, self.num_keys, self.value_dim)
        ways = {ATTENTION: self.linear, GRADIENT: self.gradients, EXACT: self.exact, "state": self.states}
        return ways[self.function]()

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * self.rng.standard_normal(shape)).astype(self.dtype)

    @functools.cached_property
    def phi(self) -> Any:
        """The map, or a map for each head."""
        heads = {"one": (), "per head": self.lead[-1:], "per key head": self.key_lead[-1:]}[self.maps]
        estimator = all_estimators()[self.features]
        return draw_nearest(estimator, self.dim, self.width, rng=self.index, like=self.query, batch_shape=heads)

    def scale_for(self, kernel: Any) -> dict[str, Any]:
        """The default for two calls of three, where there is one: for the softmax kernel alone."""
        if kernel != rf.SoftmaxKernel():
            return {"scale": 1.0}
        return {} if self.index % 3 else {"scale": SCALE}

    def option(self, name: str, word: Any) -> Any:
        rng, keys = self.rng, self.num_keys
        heads = () if word == "shared" else self.lead[-1:]
        match name, word:
            case "causal_offset", "to the last key":
                return keys - self.num_queries
            case "key_mask", _:  # some query may see none
                mask = rng.random((keys,) if word == "shared" else (*self.key_lead, keys)) < 0.8
                mask.reshape(-1)[:3] = False
                return mask
            case "key_lengths", _:
                return rng.integers(keys + 1, size=self.key_lead[:1])
            case "decay", "number":
                return 0.97
            case "decay", "per head":
                return rng.uniform(0.8, 1.0, heads)
            case "decay", _:
                gates = self.phi.num_features if word == "per feature" else 1
                return rng.uniform(0.8, 1.0, (*self.key_lead, keys, gates))
            case "relative_bias", _:
                return rng.standard_normal((*heads, max(self.num_queries + keys - 1, 0)))
            case "key_ends", _:
                return rng.integers(keys + 1, size=(*heads, self.num_queries))
            case "cu_seqlens", _:  # three sequences, some of which may be empty
                cuts = [[0, *sorted(rng.integers(n + 1, size=2).tolist()), n] for n in (self.num_queries, keys)]
                return cuts[0] if word == "shared" else tuple(cuts)
            case "initial_state", _:
                key = self.normal(*self.key_lead, EARLIER, self.dim, scale=self.input_scale)
                value = self.normal(*self.key_lead, EARLIER, self.value_dim)
                options = self.scale_for(self.phi.estimator.kernel) | {"enable_gqa": self.is_grouped, "num_threads": 1}
                return rf.linear_attention(self.query, key, value, self.phi, return_state=True, **options)[1]
        return word

    def arguments(self, kernel: Any) -> tuple[list[Any], dict[str, Any]]:
        """Queries, keys and values in the layout of the call, and its options."""
        inputs: list[Any] = [self.query, self.key, self.value]
        if "layout" in self.options:
            inputs = [np.ascontiguousarray(np.swapaxes(x, -2, -3)) for x in inputs]
        options = {name: self.option(name, word) for name, word in self.options.items()}
        return inputs, options | self.scale_for(kernel)

    def linear(self) -> dict[str, Any]:
        (query, key, value), options = self.arguments(self.phi.estimator.kernel)
        found: Any = rf.linear_attention(query, key, value, self.phi, **options)
        return {"output": found[0], "state": sums_of(found[1])} if "return_state" in options else {"output": found}

    def gradients(self) -> dict[str, Any]:
        (query, key, value), options = self.arguments(self.phi.estimator.kernel)
        known = [name for name in ("output", "final_state") if options.pop(name, None)]
        forward = functools.partial(rf.linear_attention, query, key, value, self.phi, **options)
        output, state = (forward(), None) if "cu_seqlens" in options else forward(return_state=True)
        results = {"output": output, "final_state": state}
        options |= {name: results[name] for name in known}
        gradient = self.rng.standard_normal(output.shape).astype(output.dtype)
        found = rf.linear_attention_vjp(query, key, value, self.phi, gradient, **options)
        return dict(zip(("query", "key", "value"), found, strict=True))

    def exact(self) -> dict[str, Any]:
        kernel = all_kernels()[self.features]
        (query, key, value), options = self.arguments(kernel)
        if kernel == rf.SoftmaxKernel():
            return {"output": rf.softmax_attention(query, key, value, **options)}
        return {"output": rf.kernel_attention(query, key, value, kernel, **options)}

    def states(self) -> dict[str, Any]:
        """Keys appended in two parts, the parts merged, what was seen faded; read by the first queries."""
        query = self.query[..., : self.key_lead[-1], :, :] if self.lead else self.query
        cut = int(self.rng.integers(self.num_keys + 1))
        before, after = (
            (self.phi.keys(self.key[..., part, :]), self.value[..., part, :])
            for part in (slice(0, cut), slice(cut, None))
        )
        empty = rf.AttentionState.empty(self.phi.num_features, self.value_dim, like=self.value)
        first = empty.append(*before)
        merged = first.decay(0.5).merge(empty.append(*after))
        read = merged.read(self.phi.queries(query))
        return {"merged": sums_of(merged), "streamed": sums_of(first.append(*after)), "read": read}


def sums_of(state: Any) -> dict[str, np.ndarray]:
    return {"log_max": state.log_max, "weighted": state.weighted, "total": state.total}
