"""The experiments by name."""

from experiments import (
    attention_error,
    attention_matrix_error,
    catalogue,
    chefs_tables,
    error_propagation,
    generalized_attention,
    hybrid,
    kernel_mse,
    long_range,
    orthogonal_features,
    orthogonal_gain,
    quadrature,
    real_heads,
    recommendation,
    regularized_softmax,
    sampled_softmax,
    simplex,
    speed,
    tail_bounds,
    training_stability,
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
        attention_matrix_error.EXPERIMENT,
        hybrid.EXPERIMENT,
        chefs_tables.EXPERIMENT,
        simplex.EXPERIMENT,
        orthogonal_features.EXPERIMENT,
        quadrature.EXPERIMENT,
        trig_vs_positive.EXPERIMENT,
        orthogonal_gain.EXPERIMENT,
        regularized_softmax.EXPERIMENT,
        tail_bounds.EXPERIMENT,
        uniform_convergence.EXPERIMENT,
        error_propagation.EXPERIMENT,
        training_stability.EXPERIMENT,
        long_range.EXPERIMENT,
        generalized_attention.EXPERIMENT,
        sampled_softmax.EXPERIMENT,
        speed.EXPERIMENT,
    )
}
