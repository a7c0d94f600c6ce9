"""Data, the laws that classes are drawn from, and the bias of a sampled gradient under them: dense and exact."""

from dataclasses import dataclass

import numpy as np

import randfeat as rf

NOISE = 0.25  # of a class around the middle of its cluster, and NEAR of a query around its target
NEAR = 0.1


@dataclass(frozen=True, eq=False)
class Problem:
    """Unit vectors: classes (n, d) in clusters, and queries (b, d), each near its target class (b,)."""

    classes: np.ndarray
    queries: np.ndarray
    targets: np.ndarray

    def logits(self, tau: float) -> np.ndarray:
        """`τ h·w_c`: (b, n)."""
        return tau * self.queries @ self.classes.T

    def scaled(self, tau: float) -> tuple[np.ndarray, np.ndarray]:
        """Queries and classes whose inner products are the logits."""
        return np.sqrt(tau) * self.queries, np.sqrt(tau) * self.classes


def make_problem(
    num_classes: int, dim: int, num_queries: int, num_clusters: int, *, rng: np.random.Generator
) -> Problem:
    """Clusters in random directions, classes around them, queries around random classes."""
    middles = unit(rng.standard_normal((num_clusters, dim)))
    members = rng.integers(num_clusters, size=num_classes)
    classes = unit(middles[members] + NOISE * rng.standard_normal((num_classes, dim)))
    targets = rng.integers(num_classes, size=num_queries)
    return Problem(classes, queries_near(classes, targets, rng=rng), targets)


def queries_near(classes: np.ndarray, targets: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """A query beside each target class: (n, d), (b,) -> (b, d)."""
    return unit(classes[targets] + NEAR * rng.standard_normal((len(targets), classes.shape[1])))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    """`exp(o) / Σ exp(o)` along rows."""
    weights = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return weights / np.sum(weights, axis=-1, keepdims=True)


def quadratic_law(queries: np.ndarray, classes: np.ndarray, strength: float = 100.0) -> np.ndarray:
    """`q ∝ α (h·w)² + 1`, the kernel of Blanc & Rendle 2018 with their α."""
    weights = strength * (queries @ classes.T) ** 2 + 1
    return weights / np.sum(weights, axis=-1, keepdims=True)


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """`Σ_c |p_c - q_c| / 2` of each row."""
    return np.sum(np.abs(p - q), axis=-1) / 2


def delta_total_variation(queries: np.ndarray, classes: np.ndarray, p: np.ndarray, num_features: int) -> np.ndarray:
    """What the total variation from p is on average, to first order, for positive features with independent rows.

    `q_c = p_c (1 + ε_c) / (1 + Σ_b p_b ε_b)`, where ε is an average of m terms with the covariance
    `Cov(ε_c, ε_b) = expm1(z_c·z_b) / m`, z_c = h + w_c. So `TV ≈ Σ_c p_c |ε_c - Σ_b p_b ε_b| / 2`, and the mean of
    the modulus of a centred normal variable is √(2/π) of its deviation. (b, d), (n, d), (b, n) -> (b,).
    """
    result = []
    for query, law in zip(queries, p, strict=True):
        z = query + classes
        covariance = np.expm1(z @ z.T)
        toward_mean = covariance @ law
        variance = np.diagonal(covariance) - 2 * toward_mean + law @ toward_mean
        result.append(np.sum(law * np.sqrt(np.maximum(variance, 0) / num_features)) / np.sqrt(2 * np.pi))
    return np.asarray(result)


def without_target(law: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """`q(c | c ≠ t)`: the law of negatives."""
    kept = law.copy()
    kept[np.arange(len(law)), targets] = 0
    return kept / np.sum(kept, axis=-1, keepdims=True)


def relative_length(bias: np.ndarray, problem: Problem, tau: float) -> np.ndarray:
    """Length of a bias in `Σ_c p_c w_c` over that of the exact gradient `Σ_c p_c w_c - w_t`, for each query."""
    exact = softmax(problem.logits(tau)) @ problem.classes - problem.classes[problem.targets]
    return np.linalg.norm(bias, axis=-1) / np.linalg.norm(exact, axis=-1)


def bias_of_one_negative(problem: Problem, tau: float, law: np.ndarray) -> np.ndarray:
    """`E[(e_t w_t + r w_j) / (e_t + r)] - Σ_c p_c w_c` for one negative j from `law`, r = e_j / law_j: exact, (b, d).

    The gradient in h of the sampled loss with corrected logits is τ times the first term less τ w_t.
    """
    p = softmax(problem.logits(tau))
    own = np.take_along_axis(p, problem.targets[:, None], axis=1)
    others = with_one_at_target(p, problem.targets)
    share = law * others / (law * own + others)  # law · r / (e_t + r), which is 0 where the law is
    rest = 1 - np.sum(share, axis=-1, keepdims=True)
    return share @ problem.classes + rest * problem.classes[problem.targets] - p @ problem.classes


def with_one_at_target(p: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """p with 1 at the target, whose share is 0 anyway, and nowhere below the smallest normal number."""
    result = np.maximum(p, np.finfo(p.dtype).tiny)
    result[np.arange(len(p)), targets] = 1
    return result


def limiting_bias(problem: Problem, tau: float, law: np.ndarray) -> np.ndarray:
    """`lim s · bias` of the mean over s negatives: (b, d).

    A ratio of means, N/D with D = e_t + r and N = e_t w_t + r w: its bias is `-Cov(N - μ D, D) / (s Z²)` to first order
    in 1/s, μ = Σ p_c w_c, and that covariance is `E[r² (w - μ)] - E[r (w - μ)] E[r]` over the law.
    """
    p = softmax(problem.logits(tau))
    mean = p @ problem.classes
    kept = p.copy()
    kept[np.arange(len(p)), problem.targets] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.where(kept > 0, kept**2 / law, 0.0)

    def about_mean(weights: np.ndarray) -> np.ndarray:
        return weights @ problem.classes - np.sum(weights, axis=-1, keepdims=True) * mean

    return about_mean(kept) * np.sum(kept, axis=-1, keepdims=True) - about_mean(squares)


def law_of(phi: rf.FeatureMap, queries: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """`φ(h)·φ(w_c)` over their sum, dense; entries of signed features can be negative: (b, n)."""
    weights = phi.estimate(queries, classes)
    return weights / np.sum(weights, axis=-1, keepdims=True)
