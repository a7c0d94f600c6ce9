"""Short benchmark of this machine: exact and linear attention by length, beside the roofline."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from randfeat._array import Array, host_to, namespace_named
from randfeat._numpy.threads import controller, resolve_num_threads
from randfeat.attention import AttentionCosts, AttentionMethod, attention_method, linear_attention, softmax_attention
from randfeat.attention.cost_model.measurement import interleaved, measured_rates
from randfeat.attention.exact import BLOCK
from randfeat.cli.machine import load
from randfeat.cli.roofline import Ceilings, ceiling_calls, roofline
from randfeat.estimators import PositiveFeatures
from randfeat.maps import FeatureMap

EXACT, LINEAR, CAUSAL, PHI = METHODS = ("exact", "linear", "linear, causal", "phi(x)")

LONGEST = 2.0  # limit of the seconds of one call
LARGEST = 1 << 30  # limit of the bytes of one call
BUDGET = 8.0  # seconds for all rounds but the last
ROUNDS = (2, 7)
PAUSE = 0.05  # seconds, where BLAS and our own threads take turns; see `interleaved`
LENGTHS = np.unique(np.round(2.0 ** np.arange(0, 20.1, 0.125)).astype(int))  # for comparing rates


@dataclass(frozen=True)
class Workload:
    """Standard normal queries, keys and values (heads, length, dim) in an array library, and a feature map.

    num_threads : threads for NumPy arrays, for both methods; None for all cores. Other libraries have their own
        setting.
    """

    library: str = "numpy"
    dtype: str = "float32"
    heads: int = 8
    dim: int = 64
    num_features: int = 256
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.library == "numpy":
            object.__setattr__(self, "num_threads", resolve_num_threads(self.num_threads))
        elif self.num_threads is not None:
            raise ValueError(
                f"the number of threads is a setting of {self.library} itself; it can be given for numpy only."
            )

    @functools.cached_property
    def phi(self) -> FeatureMap:
        """Positive features, drawn on the host."""
        return PositiveFeatures().draw(self.dim, self.num_features, rng=0)

    def like(self) -> Array:
        """A small array with the library and dtype of the workload."""
        try:
            return namespace_named(self.library).asarray(np.zeros(1, self.dtype))
        except ImportError:
            raise ValueError(f"{self.library} is not installed.") from None
        except RuntimeError as error:  # CuPy without a device
            raise ValueError(f"{self.library} has no device: {str(error).splitlines()[0]}") from error

    def expected(self, length: int, costs: AttentionCosts, *, is_causal: bool = False) -> AttentionMethod:
        """Expected seconds of exact and linear attention, from the measured rates `costs`."""
        x = np.broadcast_to(0.0, (self.heads, length, self.dim))
        return attention_method(x, x, x, self.phi, is_causal=is_causal, costs=costs)

    def crossing(self, costs: AttentionCosts, *, is_causal: bool) -> int | None:
        """Length from which linear attention is expected to be faster; None if it is not up to a million."""
        shortest = None
        for length in reversed(LENGTHS.tolist()):
            if self.expected(length, costs, is_causal=is_causal).name == "exact":
                return shortest
            shortest = length
        return shortest

    def too_much(self, method: str, length: int, costs: AttentionCosts) -> str | None:
        """Reason to leave a call out, if its expected time or memory is over the limit; else None."""
        expected = self.expected(length, costs, is_causal=method == CAUSAL)
        seconds = expected.exact_seconds if method == EXACT else expected.linear_seconds
        if seconds > LONGEST:
            return f"{seconds:.1f} s expected, more than {LONGEST:.0f} s"
        arrays = 4 * self.dim  # queries, keys, values, outputs
        if method == EXACT:
            arrays += 3 * min(BLOCK, length)  # logits of a block of queries, and what they become
        elif method == PHI:
            arrays += self.num_features
        size = self.heads * length * arrays * np.dtype(self.dtype).itemsize
        return f"{size / 2**30:.1f} GiB expected, more than {LARGEST >> 30} GiB" if size > LARGEST else None

    def calls(self, length: int, like: Array, methods: Sequence[str]) -> dict[str, Callable[[], Array]]:
        """The functions to time at this length, by method."""
        rng = np.random.default_rng(0)
        query, key, value = (
            host_to(rng.standard_normal((self.heads, length, self.dim), dtype=np.float32), like) for _ in range(3)
        )
        scaled = query / math.sqrt(math.sqrt(self.dim))  # as attention does
        phi, threads = self.phi.to(like), self.num_threads

        def linear(*, is_causal: bool) -> Callable[..., Array]:
            return lambda q, k, v: linear_attention(q, k, v, phi, is_causal=is_causal, num_threads=threads)

        functions: dict[str, tuple[Callable[..., Array], tuple[Array, ...]]] = {
            EXACT: (softmax_attention, (query, key, value)),
            LINEAR: (linear(is_causal=False), (query, key, value)),
            CAUSAL: (linear(is_causal=True), (query, key, value)),
            PHI: (lambda x: phi(x, num_threads=threads), (scaled,)),
        }

        def call(method: str) -> Callable[[], Array]:
            function, inputs = functions[method]
            return lambda: function(*inputs)

        return {method: call(method) for method in methods}


@dataclass(frozen=True)
class Timing:
    """Median seconds of a call; None if the call was left out, with the reason in `left_out`."""

    method: str
    length: int
    seconds: float | None
    left_out: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """Results of a benchmark: timings by length and method, the rates of `AttentionCosts`, ceilings for NumPy arrays.

    load_before : load of the machine (running processes) in the minute before.
    """

    workload: Workload
    load_before: str
    timings: tuple[Timing, ...]
    costs: AttentionCosts
    ceilings: Ceilings | None

    @classmethod
    def measure(cls, workload: Workload, lengths: Sequence[int]) -> "Benchmark":
        """Time all calls in turns, 2 to 7 rounds, and take medians; calls that would take too much are left out."""
        like, threads, dim = workload.like(), workload.num_threads, workload.dim
        load_before = load()
        pause = PAUSE if threads is not None and threads > 1 else 0.0  # other libraries have one pool of threads
        ceilings: dict[str, Callable[[], object]] = {}
        with blas_limited(threads):
            costs = AttentionCosts(**measured_rates(like, dim, dim, workload.num_features, threads, pause))
            if threads is not None:
                ceilings = ceiling_calls(threads, workload.dtype)
            calls: dict[Any, Callable[[], object]] = dict(ceilings)
            left_out: dict[tuple[int, str], str | None] = {}
            for length in sorted(set(lengths)):
                reasons = {method: workload.too_much(method, length, costs) for method in METHODS}
                left_out |= {(length, method): reason for method, reason in reasons.items()}
                timed = [method for method in METHODS if reasons[method] is None]
                if timed:
                    calls |= {(length, method): call for method, call in workload.calls(length, like, timed).items()}
            times = interleaved(calls, budget=BUDGET, rounds=ROUNDS, pause=pause)
        timings = (Timing(name[1], name[0], times.get(name), reason) for name, reason in left_out.items())
        measured = Ceilings({name: [times[name]] for name in ceilings}, threads) if threads is not None else None
        return cls(workload, load_before, tuple(timings), costs, measured)

    def tokens_per_second(self, timing: Timing) -> float | None:
        """Tokens per second, each with all of its heads; None if the call was left out."""
        return None if timing.seconds is None else timing.length / timing.seconds

    def over_exact(self, timing: Timing) -> float | None:
        """Time relative to exact attention at the same length; None if either was left out."""
        exact = next(t.seconds for t in self.timings if (t.method, t.length) == (EXACT, timing.length))
        return None if timing.seconds is None or exact is None else timing.seconds / exact

    def share(self, timing: Timing) -> float | None:
        """Share of the roofline that full linear attention reaches; None for other methods."""
        if self.ceilings is None or timing.seconds is None or timing.method != LINEAR:
            return None
        work = self.workload
        least = roofline(self.ceilings, work.dim, work.dim, work.num_features)
        return work.heads * timing.length * least / timing.seconds

    def rounded_costs(self) -> AttentionCosts:
        """The measured rates, rounded to two digits."""
        return replace(self.costs, **{name: float(f"{rate:.2g}") for name, rate in asdict(self.costs).items()})

    def as_dict(self) -> dict[str, Any]:
        """The benchmark as plain data, for JSON."""
        return {
            "workload": asdict(self.workload),
            "timings": [
                asdict(timing)
                | {
                    "tokens_per_second": self.tokens_per_second(timing),
                    "over_exact": self.over_exact(timing),
                    "share_of_roofline": self.share(timing),
                }
                for timing in self.timings
            ],
            "crossing": {
                name: self.workload.crossing(self.costs, is_causal=is_causal)
                for name, is_causal in (("full", False), ("causal", True))
            },
            "ceilings": None
            if self.ceilings is None
            else {
                "flops_per_second": self.ceilings.flops,
                "exponentials_per_second": self.ceilings.exponentials,
            },
            "costs": asdict(self.costs),
        }


@contextlib.contextmanager
def blas_limited(num_threads: int | None) -> Iterator[None]:
    """Limit BLAS to `num_threads` threads inside a `with` block; None changes nothing."""
    with contextlib.nullcontext() if num_threads is None else controller().limit(limits=num_threads):
        yield
