"""Ceilings of the machine (matrix products and exponentials per second), and the roofline of attention from them."""

import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from randfeat._numpy.threads import controller, run_tasks

SIZE = 2048  # of the square matrices
BLOCK, REPEATS = 1 << 16, 64  # in float32, 256 KiB in and 256 KiB out stay in the cache of a core
PRODUCTS = "matrix product"
EXPONENTIALS = {"np.exp": np.exp, "np.exp2": np.exp2}


def ceiling_calls(num_threads: int, dtype: str = "float32") -> dict[str, Callable[[], object]]:
    """Functions to time: a large matrix product, and exponentials in cache, on all threads."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((2, SIZE, SIZE)).astype(dtype)
    result = np.empty_like(left)
    exponents = rng.standard_normal(BLOCK).astype(dtype)

    def product() -> None:
        with controller().limit(limits=num_threads):
            np.matmul(left, right, out=result)

    def exponential(power: np.ufunc) -> Callable[[], object]:
        def repeat(powers: np.ndarray) -> None:
            for _ in range(REPEATS):
                power(exponents, out=powers)

        return lambda: run_tasks([repeat] * num_threads, lambda: np.empty(BLOCK, dtype), num_threads)

    return {PRODUCTS: product, **{name: exponential(power) for name, power in EXPONENTIALS.items()}}


class Ceilings:
    """Rates from median timings: floating-point operations, and exponentials (the faster of exp and exp2)."""

    def __init__(self, times: Mapping[str, Sequence[float]], num_threads: int) -> None:
        self.flops = 2 * SIZE**3 / statistics.median(times[PRODUCTS])
        work = num_threads * REPEATS * BLOCK
        self.rates = {name: work / statistics.median(times[name]) for name in EXPONENTIALS}
        self.exponentials = max(self.rates.values())


def flops(dim: int, value_dim: int, num_features: int) -> int:
    """Floating-point operations of full linear attention, per token and head.

    The exponents of one query and one key take 2·2md. The contribution of the key to the sums and the output of the
    query take 2·2m(dv + 1): the normalizer is one more column of the values.
    """
    return 4 * num_features * dim + 4 * num_features * (value_dim + 1)


def exponentials(num_features: int) -> int:
    """Exponentials per token and head: the features of its query and of its key."""
    return 2 * num_features


def roofline(ceilings: Ceilings, dim: int, value_dim: int, num_features: int) -> float:
    """Lower bound of the seconds per token and head.

    The time of the products plus the time of the exponentials, each at the highest rate that was measured.
    """
    return flops(dim, value_dim, num_features) / ceilings.flops + exponentials(num_features) / ceilings.exponentials
