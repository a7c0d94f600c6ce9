"""The experiments by name."""

from experiments import (
    attention_error,
    catalogue,
    error_propagation,
    generalized_attention,
    kernel_mse,
    long_range,
    real_heads,
    recommendation,
    training_stability,
    transfer,
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
        error_propagation.EXPERIMENT,
        training_stability.EXPERIMENT,
        long_range.EXPERIMENT,
        generalized_attention.EXPERIMENT,
    )
}
