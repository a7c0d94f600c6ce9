"""Plain features of NumPy arrays, computed in cache-sized blocks on several threads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from randfeat._hints import described
from randfeat._numpy.elementary import angle_unit, fastest_power, fill_waves
from randfeat._numpy.threads import Scratch, resolve_num_threads, run_tasks
from randfeat.features import ExponentialForm, FourierForm

SHORTEST = 256  # rows; below, the generic computation, without a copy of the parameters, is as fast
LEAST = 2**17  # numbers in the features; below, all of them stay in the cache anyway
BLOCK = 512  # rows at a time; with fewer, matrix products spend their time on packing the parameters
PANEL = 2**21  # bytes of a block of features: as many columns at a time as fit into them
FEW = 1 << 20  # multiplications; below, threads do not pay

Form: TypeAlias = ExponentialForm | FourierForm
Fill: TypeAlias = Callable[[np.ndarray, np.ndarray, Scratch], None]
"""A function that writes the features (n, f) of inputs in kernel units (n, d)."""


def blockwise_features(
    x: np.ndarray,
    forms: Sequence[Form],
    batch_shape: tuple[int, ...],
    num_features: int,
    unit: Callable[[np.ndarray], np.ndarray],
    num_threads: int | None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """φ(x), (..., n, d) -> (..., n, num_features), equal to the generic computation up to rounding.

    x : float32 or float64, in the units of the user; `unit` converts rows to kernel units.
    forms : one for each entry of `batch_shape`, for single maps, in the dtype of x.
    out : an array to write to, which does not share memory with x; a new one by default.

    Each block takes one matrix product and the elementary functions. All other work is done on the smaller inputs:
    terms added to exponents or angles become one more coordinate. Blocks do not depend on the number of threads, so
    neither do the features, to the last bit. Memory beside the output: about 4 MiB for each thread.
    """
    lead = np.broadcast_shapes(x.shape[:-2], batch_shape)
    features = np.empty((*lead, x.shape[-2], num_features), x.dtype) if out is None else np.asarray(out)
    fills = [fill_of(form) for form in forms]
    if batch_shape:
        inputs = np.broadcast_to(x, (*lead, *x.shape[-2:]))
        numbers = np.broadcast_to(np.arange(len(fills)).reshape(batch_shape), lead)
        maps = [(inputs[index], features[index], fills[numbers[index]]) for index in np.ndindex(lead)]
    else:  # one map for all rows
        rows = features.reshape(-1, num_features)
        maps = [(x.reshape(-1, x.shape[-1]), rows, fills[0])]
    tasks = [
        partial(block_task, source[rows], target[rows], fill, unit)
        for source, target, fill in maps
        for rows in (slice(first, first + BLOCK) for first in range(0, len(source), BLOCK))
    ]
    threads = resolve_num_threads(num_threads) if features.size * x.shape[-1] > FEW else 1
    run_tasks(tasks, partial(Scratch, x.dtype), threads)
    if not batch_shape and not np.may_share_memory(rows, features):  # the rows of `out` were no view
        features[...] = rows.reshape(features.shape)
    return features


def block_task(
    source: np.ndarray, target: np.ndarray, fill: Fill, unit: Callable[[np.ndarray], np.ndarray], scratch: Scratch
) -> None:
    """Write the features of one block of rows of one map."""
    fill(unit(source), target, scratch)


def fill_of(form: Form) -> Fill:
    """The function that writes features of this form."""
    return (ExponentialBlock if isinstance(form, ExponentialForm) else FourierBlock).of(form)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class ExponentialBlock:
    """Writer of exponential features `φ_f(x) = power((x - origin, r(x), 1)·rows_f)`."""

    form: ExponentialForm
    power: Callable[..., np.ndarray]
    rows: np.ndarray
    """(m, d + 2)"""

    @classmethod
    def of(cls, form: ExponentialForm) -> "ExponentialBlock":
        """The writer for `form`, with two more coordinates for r(x) and the weights."""
        power, unit = fastest_power()
        ones = np.ones_like(form.rows[:, :1])
        return cls(form, power, np.concatenate([form.rows, ones, form.log_weights.T], axis=1) * ones.dtype.type(unit))

    def __call__(self, x: np.ndarray, features: np.ndarray, scratch: Scratch) -> None:
        length, dim = x.shape
        inputs = scratch.take("inputs", length, dim + 2)
        np.subtract(x, 0 if self.form.origin is None else self.form.origin, out=inputs[:, :dim])
        inputs[:, dim:-1] = self.form.per_row(x)
        inputs[:, -1] = 1
        for part in panels(features, len(self.rows)):
            exponents = np.matmul(inputs, self.rows[part].T, out=memory(scratch, "exponents", length, part))
            self.power(exponents, out=features[:, part])


@dataclass(frozen=True, eq=False)
class FourierBlock:
    """Writer of `φ(x) = e^{r(x)} a cos((x, 1)·rows)`, or of cosines and sines of `x·rows`; rows in `angle_unit`."""

    form: FourierForm
    amplitudes: np.ndarray
    """(m,), or (1,) if all are equal: products with one number are faster."""
    rows: np.ndarray
    """(m, d + 1), or (m, d) for pairs."""

    @classmethod
    def of(cls, form: FourierForm) -> "FourierBlock":
        """The writer for `form`, with one more coordinate for the phases."""
        rows = form.rows if form.phases is None else np.concatenate([form.rows, form.phases.T], axis=1)
        amplitudes = form.amplitudes[0]
        if np.all(amplitudes == amplitudes[0]):
            amplitudes = amplitudes[:1]
        return cls(form, amplitudes, rows * rows.dtype.type(angle_unit(rows.dtype)))

    def __call__(self, x: np.ndarray, features: np.ndarray, scratch: Scratch) -> None:
        length, num_rows = len(x), len(self.rows)
        inputs = x
        if self.form.phases is not None:
            inputs = scratch.take("inputs", length, x.shape[-1] + 1)
            inputs[:, :-1], inputs[:, -1] = x, 1
        factors = np.exp(self.form.per_row(x))
        for part in panels(features, num_rows):
            angles = np.matmul(inputs, self.rows[part].T, out=memory(scratch, "angles", length, part))
            waves = [features[:, part]]
            if self.form.phases is None:
                waves.append(features[:, num_rows + part.start : num_rows + part.stop])
            spare = memory(scratch, "spare", length, part)
            amplitudes = self.amplitudes if len(self.amplitudes) == 1 else self.amplitudes[part]
            fill_waves(angles, amplitudes, waves[0], waves[1] if len(waves) == 2 else None, spare)
            if not np.all(factors == 1):  # all are 1 for kernels that depend on x - y
                for wave in waves:
                    wave *= factors


def panels(features: np.ndarray, num_rows: int) -> list[slice]:
    """Slices of the rows of the parameters, each small enough for its features to fit in PANEL bytes."""
    width = max(1, PANEL // (BLOCK * features.itemsize))
    return [slice(first, min(first + width, num_rows)) for first in range(0, num_rows, width)]


def memory(scratch: Scratch, name: str, length: int, part: slice) -> np.ndarray:
    """Scratch memory (length, features in `part`) for one block; `part` is a slice of the features."""
    return scratch.take(name, length, part.stop - part.start)


def check_output(out: Any, x: Any, batch_shape: tuple[int, ...], num_features: int) -> None:
    """TypeError or ValueError unless the features of x can be written into `out`."""
    if not isinstance(x, np.ndarray) or not isinstance(out, np.ndarray):
        raise TypeError(
            f"out is for NumPy arrays only, got x of {described(x)} and out of {described(out)}; write "
            "out[...] = phi(x)."
        )
    shape = (*np.broadcast_shapes(x.shape[:-2], batch_shape), x.shape[-2], num_features)
    if out.shape != shape or out.dtype != x.dtype:
        raise ValueError(f"out must be {x.dtype} of shape {shape}, got {out.dtype} of shape {out.shape}.")
    if not out.flags.writeable:
        raise ValueError("out is read-only; give an array that can be written to.")
