"""The experiments by name."""

from experiments import (
    attention_error,
    catalogue,
    kernel_mse,
    orthogonal_gain,
    real_heads,
    recommendation,
    regularized_softmax,
    tail_bounds,
    transfer,
    trig_vs_positive,
    uniform_convergence,
)
from experiments.experiment import Experiment

__all__ = ["EXPERIMENTS"]

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        attention_error.EXPERIMENT,
        kernel_mse.EXPERIMENT,
        real_heads.EXPERIMENT,
        transfer.EXPERIMENT,
        recommendation.EXPERIMENT,
        catalogue.EXPERIMENT,
        trig_vs_positive.EXPERIMENT,
        orthogonal_gain.EXPERIMENT,
        regularized_softmax.EXPERIMENT,
        tail_bounds.EXPERIMENT,
        uniform_convergence.EXPERIMENT,
    )
}
