"""The fast Walsh-Hadamard transform."""

import numpy as np

__all__ = ["hadamard_matrix", "next_power_of_two", "walsh_hadamard"]


def walsh_hadamard(x: np.ndarray) -> np.ndarray:
    """`H x` along the last axis, whose length n is a power of two: (..., n) -> (..., n), in O(n log n) additions.

    H is the symmetric matrix of signs `H_ij = (-1)^{number of common binary digits of i and j}`, with `H H = n I`. One
    pass for each binary digit replaces pairs (a, b) that differ in it by (a + b, a - b).
    """
    x = np.array(x, dtype=np.float64, order="C")
    n = x.shape[-1]
    if n < 1 or n & (n - 1):
        raise ValueError(f"the length must be a power of two, got {n}.")
    half = 1
    while half < n:
        pairs = x.reshape(*x.shape[:-1], n // (2 * half), 2, half)  # a view
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        first += second
        second *= -2
        second += first
        half *= 2
    return x


def hadamard_matrix(n: int) -> np.ndarray:
    """H itself, (n, n)."""
    return walsh_hadamard(np.eye(n))


def next_power_of_two(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()
