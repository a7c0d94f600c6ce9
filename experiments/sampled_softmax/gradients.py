"""Gradients of a sampled loss, drawn, against their exact means."""

from dataclasses import dataclass

import numpy as np

from experiments.experiment import Cell, Record, Tables
from experiments.sampled_softmax.laws import (
    Problem,
    bias_of_one_negative,
    limiting_bias,
    relative_length,
    softmax,
    without_target,
)
from experiments.sampled_softmax.settings import SampledSoftmaxSettings, problem_of, tree_of
from experiments.sampled_softmax.tree import KernelTree


@dataclass(frozen=True)
class GradientCell(Cell):
    """Sampled gradients of one query: negatives from the tree, and uniform ones."""

    query: int

    def measure(self, settings: SampledSoftmaxSettings) -> Tables:
        """Rows of `gradients`: squared relative bias by number of negatives, measured and predicted.

        `z` is the largest deviation of a coordinate of the mean from the exact mean, in standard errors, for one
        negative. Squared biases are estimated without bias, from products of different samples.
        """
        problem, tau, rng = problem_of(settings), settings.tree_tau, settings.rng(f"gradients of query {self.query}")
        problem = Problem(
            problem.classes, problem.queries[self.query : self.query + 1], problem.targets[self.query : self.query + 1]
        )
        logits = problem.logits(tau)[0]
        exact = softmax(logits) @ problem.classes
        tree = tree_of(settings)
        laws = {"tree": np.exp(tree.log_law(problem.scaled(tau)[0])), "uniform": np.full((1, len(logits)), 1.0)}
        rows: list[Record] = []
        for name, law in laws.items():
            negatives = without_target(law, problem.targets)
            total = settings.num_samples * settings.num_negatives[-1]
            if name == "tree":
                drawn = tree_negatives(tree, problem.scaled(tau)[0], int(problem.targets[0]), total, rng)
            else:
                drawn = rng.integers(len(logits) - 1, size=total)
                drawn += drawn >= problem.targets[0]
            with np.errstate(divide="ignore"):
                log_law = np.log(negatives[0])  # of the target -inf, which is not drawn
            scale = float(np.linalg.norm(exact - problem.classes[problem.targets[0]]))
            for number in settings.num_negatives:
                sampled = drawn.reshape(-1, number)
                means = sampled_means(logits, int(problem.targets[0]), sampled, log_law, problem.classes)
                errors = (means - exact) / scale
                square, deviation = squared_mean(errors)
                z = float("nan")
                if number == 1:
                    bias = bias_of_one_negative(problem, tau, negatives)[0] / scale
                    deviations = np.std(errors, axis=0, ddof=1) / np.sqrt(len(errors))
                    z = float(np.max(np.abs(np.mean(errors, axis=0) - bias) / deviations))
                limit = float(relative_length(limiting_bias(problem, tau, negatives), problem, tau)[0])
                rows.append(
                    {
                        "query": self.query,
                        "law": name,
                        "num_negatives": number,
                        "num_samples": len(errors),
                        "squared_bias": square,
                        "standard_error": deviation,
                        "first_order": (limit / number) ** 2,
                        "root_mean_square": float(np.sqrt(np.mean(np.sum(errors**2, axis=-1)))),
                        "z": z,
                    }
                )
        return {"gradients": rows}


def tree_negatives(
    tree: KernelTree, query: np.ndarray, target: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Classes other than the target: those that hit it are drawn again."""
    drawn = tree.draw(query, count, rng=rng)[0][0]
    while np.any(hits := drawn == target):
        drawn[hits] = tree.draw(query, int(np.sum(hits)), rng=rng)[0][0]
    return drawn


def sampled_means(
    logits: np.ndarray, target: int, drawn: np.ndarray, log_law: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """`Σ_c p̂_c w_c` of sampled losses: the softmax over the target and s negatives (b, s), (b, d) out.

    The logits of negatives are corrected, `o_c - log(s q_c)`.
    """
    corrected = logits[drawn] - log_law[drawn] - np.log(drawn.shape[1])
    p = softmax(np.concatenate([np.full((len(drawn), 1), logits[target]), corrected], axis=1))
    return p[:, :1] * classes[target] + np.matvec(np.swapaxes(classes[drawn], 1, 2), p[:, 1:])


def squared_mean(errors: np.ndarray) -> tuple[float, float]:
    """An unbiased estimate of |E[error]|² from rows (b, d), by products of different rows, and its standard error.

    The standard error is that of the mean over ten parts: not below that of all rows together.
    """

    def estimate(rows: np.ndarray) -> float:
        return float(np.sum(np.sum(rows, axis=0) ** 2) - np.sum(rows**2)) / (len(rows) * (len(rows) - 1))

    parts = [estimate(part) for part in np.array_split(errors, 10)]
    return estimate(errors), float(np.std(parts, ddof=1) / np.sqrt(10))
