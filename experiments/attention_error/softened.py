"""The delta method on each head as it is, and its test on heads whose logits are made small enough for it."""

from dataclasses import dataclass

import numpy as np

import randfeat as rf
from experiments.attention_error.outputs import outputs
from experiments.attention_error.settings import AttentionErrorSettings
from experiments.estimators import make_estimator
from experiments.experiment import Cell, Record, Tables
from experiments.heads import Head, load_head, relative_error


@dataclass(frozen=True)
class SoftenedCell(Cell):
    """The predicted error of a head as it is, and the test of the prediction where the prediction is valid.

    The delta method expands in the relative error of the denominator. Its size is the mean relative variance of the
    kernel along an attention row: the `spread`, here of the worst query. On a head as it is that is far above 1, so
    the head is softened: its logits are multiplied by a factor below 1, found by bisection, that brings the spread at
    the largest number of features to `settings.softened_spread`. Rows are independent, as the prediction has it.
    """

    head: str
    estimator: str

    def measure(self, settings: AttentionErrorSettings) -> Tables:
        head, estimator = load_head(self.head), make_estimator(self.estimator, "independent")
        chosen = np.arange(len(head.query))
        if not head.is_causal and chosen.size > settings.softened_queries:
            pick = settings.rng(self.head, "queries")  # the same queries for every estimator
            chosen = np.sort(pick.choice(chosen.size, settings.softened_queries, replace=False))
        test = Softening(estimator, head, chosen, max(settings.num_features))
        names = {"model": head.model, "head": head.name, "estimator": self.estimator}
        predictions: list[Record] = []
        softened: list[Record] = []
        factor = test.factor(settings.softened_spread)
        raw_error, error = test.predicted(1.0), test.predicted(factor)
        raw_spread, spread = test.spread(1.0), test.spread(factor)
        query, scale = head.query[chosen], test.scale(factor)
        exact = rf.softmax_attention(query, head.key, head.value, is_causal=head.is_causal, scale=scale)
        for num_features in settings.num_features:
            inverse = estimator.num_rows(test.num_features) / estimator.num_rows(num_features)
            row: Record = {"num_features": num_features, "spread": raw_spread * inverse}
            predictions.append(names | row | {"predicted": raw_error * np.sqrt(inverse)})
            rng, draws = settings.rng(f"{self.head} {self.estimator} softened", num_features), settings.softened_draws
            drawn = outputs(estimator, head, query, num_features, draws, rng, backend=settings.backend, scale=scale)
            squares = np.asarray([relative_error(output, exact) for output in drawn]) ** 2
            rms, predicted = np.sqrt(squares.mean()), error * np.sqrt(inverse)
            standard_error = squares.std(ddof=1) / np.sqrt(squares.size) / (2 * rms)
            softened.append(
                names
                | {
                    "num_features": num_features,
                    "num_draws": squares.size,
                    "num_queries": chosen.size,
                    "factor": factor,
                    "spread": spread * inverse,
                    "predicted": predicted,
                    "rms": rms,
                    "rms_standard_error": standard_error,
                    "ratio": rms / predicted,
                    "ratio_standard_error": standard_error / predicted,
                }
            )
        return {"predictions": predictions, "softened": softened}


@dataclass(frozen=True, eq=False)
class Softening:
    """The chosen queries of a head with all logits multiplied by a factor, under one estimator."""

    estimator: rf.Estimator
    head: Head
    chosen: np.ndarray
    num_features: int

    def scale(self, factor: float) -> float:
        return factor / self.head.dim**0.5

    def predicted(self, factor: float) -> float:
        """The delta method for the chosen queries, independent rows; inf where it overflows."""
        return float(
            rf.predict_attention_error(
                self.estimator,
                self.head.query[self.chosen],
                self.head.key,
                self.head.value,
                self.num_features,
                is_causal=self.head.is_causal,
                scale=self.scale(factor),
                num_queries=self.chosen.size,
            ).leading_order
        )

    def spread(self, factor: float) -> float:
        """`max_i Σ_j p_ij Var[K̂_ij] / K_ij²`, i the chosen queries, p the exact attention; inf where it overflows."""
        root = self.scale(factor) ** 0.5
        query, key = root * self.head.query[self.chosen], root * self.head.key
        logits = query @ key.T
        if self.head.is_causal:
            logits = np.where(np.arange(len(key)) <= self.chosen[:, None], logits, -np.inf)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        with np.errstate(over="ignore"):
            variance = self.estimator.relative_variance(query[:, None], key, num_features=self.num_features)
        finite = np.minimum(variance, np.finfo(np.float64).max)  # so that unseen keys count 0, not 0 · inf
        with np.errstate(over="ignore"):
            return float(np.max(np.sum(weights * finite, axis=1)))

    def factor(self, spread: float) -> float:
        """The largest factor up to 1 whose spread is at most `spread`, to three digits."""
        if self.spread(1.0) <= spread:
            return 1.0
        low, high = -20.0, 0.0
        while high - low > 1e-3:
            middle = (low + high) / 2
            low, high = (middle, high) if self.spread(np.exp(middle)) <= spread else (low, middle)
        return float(np.exp(low))
