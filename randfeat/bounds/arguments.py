"""Validation of the arguments of the bounds."""

from typing import Any

import numpy as np

from randfeat._array import as_host
from randfeat._hints import short


def not_negative(value: Any, name: str) -> np.ndarray:
    """`value` as float64; ValueError unless all numbers are >= 0."""
    array = as_host(value, name)
    if not np.all(array >= 0):
        raise ValueError(f"{name} must not be negative (or NaN), got {np.min(array)}.")
    return array


def positive(value: Any, name: str) -> np.ndarray:
    """`value` as float64; ValueError unless all numbers are finite and > 0."""
    array = as_host(value, name)
    if not np.all((array > 0) & np.isfinite(array)):
        raise ValueError(f"{name} must be positive and finite, got {np.min(array)}.")
    return array


def probability(failure: float) -> float:
    """`failure` as a float; ValueError unless it lies strictly between 0 and 1."""
    if not 0 < failure < 1:
        raise ValueError(f"failure must be a probability between 0 and 1, got {short(failure)}.")
    return float(failure)


def square(matrix: Any, name: str) -> np.ndarray:
    """`matrix` as float64; ValueError unless it is square."""
    array = as_host(matrix, name)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {array.shape}.")
    return array
