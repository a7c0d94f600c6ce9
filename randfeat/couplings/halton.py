"""Rows from scrambled Halton points."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat.couplings.base import register_coupling
from randfeat.couplings.quasi_random import QuasiRandom


@dataclass(frozen=True)
class Halton(QuasiRandom):
    """Rows `Φ^{-1}(p_i)` of scrambled Halton points p_i: on axis l the digits of i in the l-th prime base, reversed.

    Each digit of each axis is scrambled by an independent random permutation. The infinitely many digits that are 0 for
    all m rows are replaced by one uniform remainder. So a point is never 0, and each row alone is N(0, I_d) up to
    rounding. Any number of rows, any dimension. Beyond about d = 10 the bases are so large that a few points are hardly
    more even than random ones. The joint law has no closed form: `randfeat.montecarlo.sample_errors` measures
    variances.
    Source: Halton 1960; Owen 2017, "A randomized Halton algorithm in R" (scrambling).

    >>> from scipy.special import ndtr
    >>> rows = Halton().sample(9, 2, rng=np.random.default_rng(0))
    >>> np.sort(np.floor(9 * ndtr(rows[:, 1]))).tolist() == list(range(9))  # base 3 on the second axis
    True
    """

    def points(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        """Points `Σ_k π_k(digit_k) b^{-k} + b^{-K} remainder`, for the base b of each axis."""
        rng = as_generator(rng)
        result = np.empty((*batch_shape, num_rows, dim))
        for axis, base in enumerate(first_primes(dim)):
            index, unit = np.arange(num_rows), 1.0
            total = np.zeros((*batch_shape, num_rows))
            while index.any():
                permutation = np.argsort(rng.random((*batch_shape, base)), axis=-1)
                unit /= base
                total += unit * permutation[..., index % base]
                index //= base
            remainder = (rng.integers(0, 2**52, size=(*batch_shape, 1)) + 0.5) / 2**52  # never 0
            result[..., axis] = total + unit * remainder
        return np.minimum(result, 1 - 2.0**-53)  # sums may round to 1


def first_primes(num: int) -> list[int]:
    """The `num` smallest primes."""
    primes: list[int] = []
    candidate = 2
    while len(primes) < num:
        if all(candidate % p for p in primes if p * p <= candidate):
            primes.append(candidate)
        candidate += 1
    return primes


register_coupling("halton", Halton)
