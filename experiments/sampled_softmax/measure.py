"""What is measured: distances between laws, frequencies of draws, bias of gradients, and time for each draw."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

import randfeat as rf
from experiments.clocks import timed
from experiments.experiment import Cell, Record, Tables
from experiments.sampled_softmax.gradients import GradientCell
from experiments.sampled_softmax.laws import (
    Problem,
    bias_of_one_negative,
    delta_total_variation,
    law_of,
    limiting_bias,
    quadratic_law,
    relative_length,
    softmax,
    total_variation,
    without_target,
)
from experiments.sampled_softmax.settings import FITTED, PLAIN, SampledSoftmaxSettings, fitted, problem_of, tree_of
from experiments.sampled_softmax.tree import KernelTree

LEAST_COUNT = 5.0  # expected, in every bin of a chi-square test


def cells(settings: SampledSoftmaxSettings) -> list[Cell]:
    result: list[Cell] = [LawCell(tau) for tau in settings.taus]
    for query in range(settings.num_tested):
        result += [FrequencyCell("tree", query), FrequencyCell("Gumbel-max", query), GradientCell(query)]
    return [*result, SpeedCell()]


@dataclass(frozen=True)
class LawCell(Cell):
    """All laws at one τ: distance from the softmax, and the bias that they give the gradient."""

    tau: float

    def measure(self, settings: SampledSoftmaxSettings) -> Tables:
        """Rows of `laws`: means over queries, with the standard error over feature maps where these are random."""
        problem, tau, key = problem_of(settings), self.tau, f"laws at τ = {self.tau:g}"
        exact = softmax(problem.logits(tau))
        queries, classes = problem.scaled(tau)
        fixed = {
            "softmax": exact,
            "uniform": np.full_like(exact, 1 / settings.num_classes),
            "quadratic": quadratic_law(problem.queries, problem.classes),
        }
        rows = [self.row(name, 0, [law], problem, exact) for name, law in fixed.items()]
        negative: list[Record] = []
        for width in settings.num_features:
            kinds = {PLAIN: rf.PositiveFeatures(coupling="independent"), FITTED: fitted(settings, tau, width)}
            for name, estimator in kinds.items():
                rngs = settings.rngs(settings.num_maps, key, name, width)
                maps = [estimator.draw(settings.dim, width, rng=rng) for rng in rngs]
                row = self.row(name, width, [law_of(phi, queries, classes) for phi in maps], problem, exact)
                if name == PLAIN:
                    row["predicted"] = float(np.mean(delta_total_variation(queries, classes, exact, width)))
                rows.append(row)
            signed = rf.TrigonometricFeatures(rf.GaussianKernel())
            phi = signed.draw(settings.dim, width, rng=settings.rng(key, "trigonometric", width))
            share = float(np.mean(phi.estimate(queries, classes) <= 0))
            negative.append({"tau": tau, "num_features": width, "share": share})
        return {"laws": rows, "signed": negative}

    def row(self, name: str, width: int, laws: list[np.ndarray], problem: Problem, exact: np.ndarray) -> Record:
        distances = [float(np.mean(total_variation(exact, law))) for law in laws]
        one: list[float] = []
        limit: list[float] = []
        for law in laws:
            negatives = without_target(law, problem.targets)
            for biases, bias_of in ((one, bias_of_one_negative), (limit, limiting_bias)):
                bias = bias_of(problem, self.tau, negatives)
                biases.append(float(np.mean(relative_length(bias, problem, self.tau))))
        spread = float(np.std(distances, ddof=1) / np.sqrt(len(laws))) if len(laws) > 1 else 0.0
        return {
            "tau": self.tau,
            "law": name,
            "num_features": width,
            "total_variation": float(np.mean(distances)),
            "standard_error": spread,
            "predicted": float("nan"),
            "bias_of_one": float(np.mean(one)),
            "limiting_bias": float(np.mean(limit)),
        }


@dataclass(frozen=True)
class FrequencyCell(Cell):
    """Draws for one query, counted and compared with the law that they should have."""

    sampler: str
    query: int

    def measure(self, settings: SampledSoftmaxSettings) -> Tables:
        """One row of `frequencies`: Pearson's statistic with its p-value.

        Classes are put in bins in the order of their probability, until each is expected at least five times.
        """
        problem, rng = problem_of(settings), settings.rng(f"frequencies of {self.sampler}, query {self.query}")
        chosen = slice(self.query, self.query + 1)
        disagreement = 0.0
        if self.sampler == "tree":
            tree = tree_of(settings)
            queries = problem.scaled(settings.tree_tau)[0][chosen]
            law = law_of(tree.phi, *problem.scaled(settings.tree_tau))[self.query]
            drawn, log_law = tree.draw(queries, settings.num_draws, rng=rng)
            disagreement = float(np.max(np.abs(np.expm1(log_law[0] - np.log(law[drawn[0]])))))
        else:
            logits = problem.logits(settings.tree_tau)[self.query]
            law = softmax(logits)
            drawn = gumbel_max(np.broadcast_to(logits, (settings.num_draws, len(logits))), rng)
        counts = np.bincount(drawn.ravel(), minlength=settings.num_classes)
        statistic, bins = pearson(counts, law)
        return {
            "frequencies": [
                {
                    "sampler": self.sampler,
                    "query": self.query,
                    "num_draws": settings.num_draws,
                    "bins": bins,
                    "statistic": statistic,
                    "p_value": float(chi2.sf(statistic, bins - 1)),
                    "disagreement": disagreement,
                }
            ]
        }


def gumbel_max(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exact draws from the softmax, `argmax_c (o_c + g_c)` with standard Gumbel g: (b, n) -> (b,).

    Source: Gumbel 1954; Maddison, Tarlow & Minka 2014, "A* Sampling". Blocks of rows bound the memory.
    """
    blocks = [logits[i : i + 1000] for i in range(0, len(logits), 1000)]
    return np.concatenate([np.argmax(block + rng.gumbel(size=block.shape), axis=-1) for block in blocks])


def pearson(counts: np.ndarray, law: np.ndarray) -> tuple[float, int]:
    """`Σ (count - expected)² / expected` over bins of classes, and the number of bins."""
    order = np.argsort(law)
    counts, expected = counts[order], law[order] * np.sum(counts)
    filled = np.cumsum(expected) // LEAST_COUNT  # classes of one value share a bin; large ones have one for themselves
    filled[filled == filled[-1]] = filled[-1]
    bins = np.unique(filled, return_inverse=True)[1]
    seen, wanted = (np.bincount(bins, weights=values) for values in (counts, expected))
    if len(wanted) > 1 and wanted[0] < LEAST_COUNT:  # what stays below the first multiple goes to the next bin
        seen[1], wanted[1] = seen[1] + seen[0], wanted[1] + wanted[0]
        seen, wanted = seen[1:], wanted[1:]
    return float(np.sum((seen - wanted) ** 2 / wanted)), len(wanted)


@dataclass(frozen=True)
class SpeedCell(Cell):
    """Time for each draw by number of classes: one draw for each of many queries, all sizes interleaved."""

    def measure(self, settings: SampledSoftmaxSettings) -> Tables:
        """Rows of `speed`, per draw; features of the queries, or their logits, included."""
        contenders: dict[str, Callable[[], object]] = {}
        counts: dict[str, int] = {}
        queries = random_vectors(settings, settings.speed_queries, "queries")
        phi = rf.PositiveFeatures().draw(settings.speed_dim, settings.speed_features, rng=settings.rng("speed"))
        for size in settings.speed_classes:
            classes = random_vectors(settings, size, "classes")
            tree = KernelTree.of(phi, classes)
            few = max(1, min(settings.speed_queries, 2**20 // size))
            rng = settings.rng("speed", size)
            contenders[f"tree {size}"] = functools.partial(tree.draw, queries, 1, rng=rng)
            contenders[f"Gumbel-max {size}"] = functools.partial(direct_draws, queries[:few], classes, rng)
            counts[f"tree {size}"], counts[f"Gumbel-max {size}"] = len(queries), few
        rows: list[Record] = []
        for name, seconds in timed(contenders, settings.speed_rounds).items():
            sampler, size_text = name.rsplit(" ", 1)
            rows.append(
                {
                    "sampler": sampler,
                    "num_classes": int(size_text),
                    "queries": counts[name],
                    "wall": seconds.wall / counts[name],
                    "processor": seconds.processor / counts[name],
                }
            )
        return {"speed": rows}


def random_vectors(settings: SampledSoftmaxSettings, count: int, name: str) -> np.ndarray:
    rng = settings.rng("speed", name, count)
    return rng.standard_normal((count, settings.speed_dim)) / np.sqrt(settings.speed_dim)


def direct_draws(queries: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One exact draw for each query, from its n logits."""
    return gumbel_max(queries @ classes.T, rng)
