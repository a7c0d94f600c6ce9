"""Rows from scrambled Halton points."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_generator
from randfeat.couplings.base import register_coupling
from randfeat.couplings.quasi_random import QuasiRandom

LONGEST = 4096  # digits of a permutation that is drawn whole, though fewer may be used


@dataclass(frozen=True)
class Halton(QuasiRandom):
    """Rows `Φ^{-1}(p_i)` of scrambled Halton points p_i: on axis l the digits of i in the l-th prime base, reversed.

    Each digit of each axis is scrambled by an independent random permutation. The infinitely many digits that are 0 for
    all m rows are replaced by one uniform remainder. So a point is never 0, and each row alone is N(0, I_d) up to
    rounding. Any number of rows, any dimension. Beyond about d = 10 the bases are so large that a few points are hardly
    more even than random ones. The joint law has no closed form: `randfeat.montecarlo.sample_errors` measures
    variances.
    For: smooth kernels in a few dimensions, with any number of rows.
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
                permutation = permutations(base, num_rows, rng=rng, batch_shape=batch_shape)
                unit /= base
                total += unit * permutation[..., index % base]
                index //= base
            remainder = (rng.integers(0, 2**52, size=(*batch_shape, 1)) + 0.5) / 2**52  # never 0
            result[..., axis] = total + unit * remainder
        return np.minimum(result, 1 - 2.0**-53)  # sums may round to 1


def permutations(
    base: int, num_used: int, *, rng: np.random.Generator, batch_shape: tuple[int, ...] = ()
) -> np.ndarray:
    """Independent random permutations of the digits below `base`; of a long one, only the images of the first digits.

    The m first points of an axis use m digits at most, so the cost of d axes does not grow with their bases, about
    `d log d`.
    """
    if base <= max(num_used, LONGEST):
        return np.argsort(rng.random((*batch_shape, base)), axis=-1)
    images = [rng.choice(base, size=num_used, replace=False) for _ in range(math.prod(batch_shape))]
    return np.reshape(np.asarray(images, dtype=np.int64), (*batch_shape, num_used))


def first_primes(num: int) -> list[int]:
    """The `num` smallest primes, by the sieve of Eratosthenes; the n-th is below `n (log n + log log n)` for n >= 6."""
    stop = 15 if num < 6 else math.ceil(num * (math.log(num) + math.log(math.log(num))))
    is_prime = np.ones(stop, dtype=bool)
    is_prime[:2] = False
    for factor in range(2, math.isqrt(stop) + 1):
        if is_prime[factor]:
            is_prime[factor * factor :: factor] = False
    return np.flatnonzero(is_prime)[:num].tolist()


register_coupling("halton", Halton)
