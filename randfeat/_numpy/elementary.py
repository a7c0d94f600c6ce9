"""Elementary functions that NumPy vectorizes on this machine, and substitutes for the slow ones."""

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np


@functools.cache
def has_vector_functions() -> bool:
    """Whether NumPy has vectorized exp2 and float64 tan (AVX-512); elsewhere they are slow."""
    try:
        features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):  # not public, so it may move
        return False
    return bool(features.get("AVX512_SKX") or features.get("X86_V4"))


def fastest_power() -> tuple[Callable[..., np.ndarray], float]:
    """Fastest exponential and its unit, `power(unit · x) = e^x`: base 2 if exp2 is vectorized, else base e."""
    return (np.exp2, math.log2(math.e)) if has_vector_functions() else (np.exp, 1.0)


def angle_unit(dtype: Any) -> float:
    """Factor for the angles given to `fill_waves`: 1/2 if it uses tangents of half angles, else 1."""
    return 0.5 if dtype == np.float64 and has_vector_functions() else 1.0


def fill_waves(
    angles: np.ndarray, amplitudes: np.ndarray, cosines: np.ndarray, sines: np.ndarray | None, spare: np.ndarray
) -> None:
    """Write `a cos(u)`, and `a sin(u)` unless `sines` is None, for angles u in `angle_unit`; a (m,) or (1,), u (n, m).

    Overwrites `angles` and `spare` (n, m). NumPy vectorizes the tangent of float64 but not sine and cosine. With t =
    tan(u/2) and r = 2a/(1 + t²) they are t r and r - a, to 2 eps a for every finite u.
    """
    if angle_unit(angles.dtype) != 1:
        np.tan(angles, out=angles)
        np.multiply(angles, angles, out=spare)
        spare += 1
        np.divide(2 * amplitudes, spare, out=spare)
        np.subtract(spare, amplitudes, out=cosines)
        if sines is not None:
            np.multiply(angles, spare, out=sines)
        return
    np.cos(angles, out=spare)
    np.multiply(spare, amplitudes, out=cosines)
    if sines is not None:
        np.sin(angles, out=angles)
        np.multiply(angles, amplitudes, out=sines)


def ratio(error: np.ndarray, size: np.ndarray) -> np.ndarray:
    """`error / size`; no error is 0 of any size, also of 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / size)
