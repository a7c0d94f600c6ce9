"""Errors of attention outputs over draws, for error curves."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from randfeat._array import as_host
from randfeat._numpy.threads import resolve_num_threads, run_tasks
from randfeat.attention import kernel_attention, linear_attention, softmax_attention
from randfeat.estimators.base import Estimator
from randfeat.montecarlo.cell import Cell, mean_with_error
from randfeat.montecarlo.sampling import BATCH_BYTES, parts


@dataclass(frozen=True, eq=False)
class AttentionDraws:
    """Queries, keys and values whose attention is estimated; options are keywords of `linear_attention`."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    options: dict[str, Any]

    @classmethod
    def of(cls, query: Any, key: Any, value: Any, **options: Any) -> "AttentionDraws":
        """Host copies in float64; the operators check how they fit together."""
        query, key, value = as_host(query, "query"), as_host(key, "key"), as_host(value, "value")
        for side, name in ((query, "query"), (key, "key"), (value, "value")):
            if side.ndim < 2 or 0 in side.shape:
                raise ValueError(f"{name} must have shape (..., length >= 1, dim), got {side.shape}.")
        return cls(query, key, value, options)

    @property
    def dim(self) -> int:
        """Length of queries and keys."""
        return int(self.query.shape[-1])

    @property
    def lead(self) -> tuple[int, ...]:
        """Leading dimensions of the outputs."""
        return np.broadcast_shapes(*(x.shape[:-2] for x in (self.query, self.key, self.value)))

    def average_error(self, estimator: Estimator) -> float:
        """The error of the plain average of the values that each query sees."""
        exact = kernel_attention(self.query, self.key, self.value, estimator.kernel, **self.options)
        average = softmax_attention(0 * self.query, self.key, self.value, **{**self.options, "scale": 1.0})
        norms = (np.sum(x**2, axis=(-2, -1)) for x in (average - exact, exact))
        return float(np.sqrt(np.mean(ratio(*norms))))

    def batch_sizes(self, estimators: list[Estimator], num_features: int, num_draws: int) -> list[int]:
        """Draws of each batch, so that its rows, features and outputs take at most BATCH_BYTES."""
        rows = max(estimator.num_rows(num_features, self.dim) for estimator in estimators)
        heads = int(np.prod(self.lead))
        of_map = 3 * self.dim * max(rows, self.dim) + num_features * self.value.shape[-1]
        outputs = 3 * self.query.shape[-2] * self.value.shape[-1] + 1024 * num_features
        size = int(np.clip(BATCH_BYTES // (8 * heads * (of_map + outputs)), 1, num_draws))
        return [size] * (num_draws // size) + ([num_draws % size] if num_draws % size else [])

    def cell(
        self, estimator: Estimator, num_features: int, sizes: list[int], generators: list[np.random.Generator]
    ) -> Cell:
        """The measures of one estimator and width, over draws."""
        exact = kernel_attention(self.query, self.key, self.value, estimator.kernel, **self.options)
        norms = np.sum(exact**2, axis=(-2, -1))
        sizes_of_rows = np.sqrt(np.mean(np.sum(exact**2, axis=-1), axis=-1))
        squares, largest = np.empty(sum(sizes)), np.empty(sum(sizes))

        def batch(part: slice, size: int, generator: np.random.Generator, _: None) -> None:
            shape = (size, *(self.lead or estimator.batch_shape))
            phi = estimator.draw(self.dim, num_features, rng=generator, batch_shape=shape)
            q, k, v = (np.broadcast_to(x, (*shape, *x.shape[-2:])) for x in (self.query, self.key, self.value))
            output = linear_attention(q, k, v, phi, num_threads=1, **self.options)
            errors = np.sum((output - exact) ** 2, axis=-1)
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = ratio(np.sum(errors, axis=-1), norms)
                worst = ratio(np.sqrt(np.max(errors, axis=-1)), sizes_of_rows)
            squares[part] = relative.reshape(size, -1).mean(axis=1)
            largest[part] = worst.reshape(size, -1).max(axis=1)

        batches = zip(parts(sizes), sizes, generators, strict=True)
        run_tasks([partial(batch, *arguments) for arguments in batches], lambda: None, resolve_num_threads(None))
        mean, error = mean_with_error(squares)
        root = float(np.sqrt(mean))
        measured = {
            "error": (root, error / (2 * root) if root else 0.0),
            "median_error": median_with_error(np.sqrt(squares)),
            "relative_sup": mean_with_error(largest),
            "relative_mse": (mean, error),
        }
        return Cell(measured, {}, squares)


def ratio(error: np.ndarray, size: np.ndarray) -> np.ndarray:
    """`error / size`; no error is 0 of any size, also of 0."""
    return np.where(error == 0, 0.0, error / np.where(error == 0, 1.0, size))


def median_with_error(of_draws: np.ndarray) -> tuple[float, float]:
    """Median over draws; its standard error is half the width of the order statistics √n / 2 ranks around it."""
    ordered, n = np.sort(of_draws), len(of_draws)
    low, high = (int(np.clip(np.rint((n - 1) / 2 + sign * np.sqrt(n) / 2), 0, n - 1)) for sign in (-1, 1))
    return float(np.median(of_draws)), float((ordered[high] - ordered[low]) / 2)
