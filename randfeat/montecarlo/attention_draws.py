"""Errors of attention outputs over draws, for error curves."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._array import as_host
from randfeat._numpy.elementary import ratio
from randfeat.attention import kernel_attention, linear_attention, softmax_attention
from randfeat.estimators.base import Estimator
from randfeat.kernels import Kernel
from randfeat.montecarlo.cell import Cell
from randfeat.montecarlo.measured import Measured, mean_over_draws
from randfeat.montecarlo.sampling import run_batches, sizes_of_batches


@dataclass(frozen=True, eq=False)
class AttentionDraws:
    """Queries, keys and values whose attention is estimated, and its exact outputs.

    options : keywords of `linear_attention`.
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    exact: np.ndarray
    options: dict[str, Any]

    @classmethod
    def of(cls, query: Any, key: Any, value: Any, kernel: Kernel, **options: Any) -> "AttentionDraws":
        """Host copies in float64; the operators check how they fit together."""
        query, key, value = as_host(query, "query"), as_host(key, "key"), as_host(value, "value")
        for side, name in ((query, "query"), (key, "key"), (value, "value")):
            if side.ndim < 2 or 0 in side.shape:
                raise ValueError(f"{name} must have shape (..., length >= 1, dim), got {side.shape}.")
        return cls(query, key, value, kernel_attention(query, key, value, kernel, **options), options)

    @property
    def dim(self) -> int:
        """Length of queries and keys."""
        return int(self.query.shape[-1])

    @property
    def lead(self) -> tuple[int, ...]:
        """Leading dimensions of the outputs."""
        return np.broadcast_shapes(*(x.shape[:-2] for x in (self.query, self.key, self.value)))

    @property
    def average_error(self) -> float:
        """The error of the plain average of the values that each query sees."""
        average = softmax_attention(0 * self.query, self.key, self.value, **{**self.options, "scale": 1.0})
        norms = (np.sum(x**2, axis=(-2, -1)) for x in (average - self.exact, self.exact))
        return float(np.sqrt(np.mean(ratio(*norms))))

    def batch_sizes(self, estimators: list[Estimator], num_features: int, num_draws: int) -> list[int]:
        """Draws of each batch, so that its rows, features and outputs take at most BATCH_BYTES."""
        rows = max(estimator.num_rows(num_features, self.dim) for estimator in estimators)
        heads = int(np.prod(self.lead))
        of_map = 3 * self.dim * max(rows, self.dim) + num_features * self.value.shape[-1]
        outputs = 3 * self.query.shape[-2] * self.value.shape[-1] + 1024 * num_features
        return sizes_of_batches(heads * (of_map + outputs), num_draws)

    def cell(
        self, estimator: Estimator, num_features: int, sizes: list[int], generators: list[np.random.Generator]
    ) -> Cell:
        """The measures of one estimator and width, over draws."""
        exact, norms = self.exact, np.sum(self.exact**2, axis=(-2, -1))
        sizes_of_rows = np.sqrt(np.mean(np.sum(exact**2, axis=-1), axis=-1))
        squares, largest = np.empty(sum(sizes)), np.empty(sum(sizes))

        def batch(part: slice, size: int, generator: np.random.Generator, _: None) -> None:
            shape = (size, *(self.lead or estimator.batch_shape))
            phi = estimator.draw(self.dim, num_features, rng=generator, batch_shape=shape)
            q, k, v = (np.broadcast_to(x, (*shape, *x.shape[-2:])) for x in (self.query, self.key, self.value))
            output = linear_attention(q, k, v, phi, num_threads=1, **self.options)
            errors = np.sum((output - exact) ** 2, axis=-1)
            relative = ratio(np.sum(errors, axis=-1), norms)
            worst = ratio(np.sqrt(np.max(errors, axis=-1)), sizes_of_rows)
            squares[part] = relative.reshape(size, -1).mean(axis=1)
            largest[part] = worst.reshape(size, -1).max(axis=1)

        run_batches(batch, sizes, generators)
        mse = mean_over_draws(squares)
        root = np.sqrt(mse.value)
        measured = {
            "error": Measured(root, ratio(mse.standard_error, 2 * root)),
            "median_error": median_over_draws(np.sqrt(squares)),
            "relative_sup": mean_over_draws(largest),
            "relative_mse": mse,
        }
        return Cell(measured, {}, squares)


def median_over_draws(of_draws: np.ndarray) -> Measured:
    """Median over draws; its standard error is half the width of the order statistics √n / 2 ranks around it."""
    ordered, n = np.sort(of_draws), len(of_draws)
    low, high = (int(np.clip(np.rint((n - 1) / 2 + sign * np.sqrt(n) / 2), 0, n - 1)) for sign in (-1, 1))
    return Measured(np.median(of_draws), (ordered[high] - ordered[low]) / 2)
