"""The experiments by name."""

from experiments import (
    attention_error,
    attention_matrix_error,
    catalogue,
    chefs_tables,
    hybrid,
    kernel_mse,
    orthogonal_features,
    quadrature,
    real_heads,
    recommendation,
    simplex,
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
        attention_matrix_error.EXPERIMENT,
        hybrid.EXPERIMENT,
        chefs_tables.EXPERIMENT,
        simplex.EXPERIMENT,
        orthogonal_features.EXPERIMENT,
        quadrature.EXPERIMENT,
    )
}
