"""Sizes of the attention_error experiment."""

from dataclasses import dataclass

from experiments.estimators import COUPLINGS, EVEN_ESTIMATORS
from experiments.experiment import Settings
from experiments.heads import head_names


@dataclass(frozen=True)
class AttentionErrorSettings(Settings):
    """Sizes of the attention_error experiment.

    num_draws : independent feature maps for each error. softened_draws, softened_queries : the same for the softened
    heads, and how many queries (all of them for causal heads). softened_spread : mean relative variance of the kernel
    that a head is softened to, at the largest `num_features`.
    """

    heads: tuple[str, ...] = head_names()
    estimators: tuple[str, ...] = ("positive", "hyp+", "trig pairs")
    couplings: tuple[str, ...] = tuple(COUPLINGS)
    num_features: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    num_draws: int = 10
    softened_draws: int = 32
    softened_queries: int = 32
    softened_spread: float = 0.02


def is_meaningful(estimator: str, coupling: str) -> bool:
    """Whether the coupling is a comparison: antithetic rows under an even estimator are half as many, counted twice."""
    return not (estimator in EVEN_ESTIMATORS and "antithetic" in coupling)
