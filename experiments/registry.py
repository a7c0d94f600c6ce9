"""The experiments by name."""

from experiments import (
    attention_error,
    catalogue,
    kernel_mse,
    real_heads,
    recommendation,
    sampled_softmax,
    speed,
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
        sampled_softmax.EXPERIMENT,
        speed.EXPERIMENT,
    )
}
