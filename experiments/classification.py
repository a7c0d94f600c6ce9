"""Nadaraya-Watson classification, argmax_c Σ_j K̂(x, x_j) [y_j = c]: data, bandwidth and accuracy.

Inputs are standardized columns times one factor, the inverse of the bandwidth; the kernel is exp(-|x-y|²/2).
"""

import functools
from dataclasses import dataclass

import numpy as np

import randfeat as rf
from experiments.datasets import load_dataset
from experiments.experiment import Settings


@dataclass(frozen=True, eq=False)
class Task:
    """Test inputs x (n, d) with their labels (n,); training inputs y (k, d) with their votes (k, classes), 0 or 1."""

    x: np.ndarray
    labels: np.ndarray
    y: np.ndarray
    votes: np.ndarray


def make_task(name: str, scale: float, *, seed: int, most_points: int) -> Task:
    """Training and test points of a table, inputs times `scale`."""
    train, _, test = sets(name, seed, most_points)
    return Task(scale * test[0], test[1], scale * train[0], one_hot(train[1]))


def accuracy(phi: rf.FeatureMap, task: Task) -> float:
    """Share of the test points that features classify right, in time linear in the number of points.

    Each feature is scaled by its largest key and each query by its largest feature, which changes no argmax.
    """
    queries, keys = phi.queries(task.x), phi.keys(task.y)
    largest = np.max(keys.log_scale, axis=0)
    sums = (keys.values * np.exp(keys.log_scale - largest)).T @ task.votes
    scale = queries.log_scale + largest
    scores = (queries.values * np.exp(scale - np.max(scale, axis=1, keepdims=True))) @ sums
    return float(np.mean(np.argmax(scores, axis=1) == task.labels))


def exact_accuracy(task: Task) -> float:
    """The same with the kernel itself."""
    squared = np.sum(task.x**2, 1)[:, None] + np.sum(task.y**2, 1) - 2 * task.x @ task.y.T
    weights = np.exp((np.min(squared, axis=1, keepdims=True) - squared) / 2)
    return float(np.mean(np.argmax(weights @ task.votes, axis=1) == task.labels))


@functools.cache
def bandwidth(name: str, seed: int, most_points: int) -> tuple[float, float]:
    """The multiple of the standardized inputs that classifies best by the exact kernel on held-out points; accuracy."""
    train, valid, _ = sets(name, seed, most_points)
    grid = np.geomspace(0.1, 2.0, 14)
    found = [exact_accuracy(Task(s * valid[0], valid[1], s * train[0], one_hot(train[1]))) for s in grid]
    best = int(np.argmax(found))
    return float(grid[best]), found[best]


def sets(name: str, seed: int, most_points: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training, validation and test points (60, 20 and 20 %) with their labels."""
    data = load_dataset(name)
    count = min(len(data.inputs), most_points)
    parts = data.split(Settings(seed=seed).rng("sets", name), count - 2 * (count // 5), count // 5, count // 5)
    return [(data.inputs[part], data.target[part]) for part in parts]


def one_hot(labels: np.ndarray) -> np.ndarray:
    """(n,) labels as (n, classes)."""
    return np.eye(int(labels.max()) + 1)[labels]
