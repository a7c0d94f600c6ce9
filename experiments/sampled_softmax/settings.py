"""Sizes, and what the cells of a run share: the problem, estimators fitted to it, and the tree."""

import functools
from dataclasses import dataclass

import numpy as np

import randfeat as rf
from experiments.experiment import Settings
from experiments.sampled_softmax.laws import Problem, make_problem, queries_near
from experiments.sampled_softmax.tree import KernelTree

PLAIN, FITTED = "positive features", "fitted features"
CALIBRATION = 256  # queries that features are fitted to


@dataclass(frozen=True)
class SampledSoftmaxSettings(Settings):
    """Sizes.

    taus : τ of the logits τ h·w. num_maps : independent draws of the features, for the distance of laws.
    tree_features, tree_tau : for everything that draws. num_negatives : increasing. speed_* : the timings.
    false_alarm : probability that some verdict of a run fails by chance.
    """

    num_classes: int = 1000
    dim: int = 16
    num_clusters: int = 25
    num_queries: int = 32
    taus: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    num_features: tuple[int, ...] = (64, 256, 1024)
    num_maps: int = 20
    tree_features: int = 256
    tree_tau: float = 4.0
    num_tested: int = 4
    num_draws: int = 50_000
    num_negatives: tuple[int, ...] = (1, 4, 16, 64)
    num_samples: int = 1000
    speed_classes: tuple[int, ...] = tuple(2**k for k in range(10, 21, 2))
    speed_dim: int = 32
    speed_features: int = 32
    speed_queries: int = 128
    speed_rounds: int = 5
    false_alarm: float = 1e-3


@functools.lru_cache(maxsize=4)
def problem_of(settings: SampledSoftmaxSettings) -> Problem:
    return make_problem(
        settings.num_classes, settings.dim, settings.num_queries, settings.num_clusters, rng=settings.rng("problem")
    )


def fitted(settings: SampledSoftmaxSettings, tau: float, num_features: int) -> rf.Estimator:
    """Positive features fitted to the classes and to queries like those of the run, but not to these."""
    problem = problem_of(settings)
    rng = settings.rng("calibration")
    targets = rng.integers(settings.num_classes, size=CALIBRATION)
    queries = queries_near(problem.classes, targets, rng=rng)
    root = np.sqrt(tau)
    return rf.adapt(root * queries, root * problem.classes, level="dense", num_features=num_features, scale=1.0, rng=0)


def tree_of(settings: SampledSoftmaxSettings) -> KernelTree:
    estimator = fitted(settings, settings.tree_tau, settings.tree_features)
    phi = estimator.draw(settings.dim, settings.tree_features, rng=settings.rng("tree"))
    return KernelTree.of(phi, problem_of(settings).scaled(settings.tree_tau)[1])
