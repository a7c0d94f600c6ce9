"""The experiments of this repository: one entry each, the name of a module here that has an `EXPERIMENT`."""

from importlib import import_module

from experiments.experiment import Experiment

GROUPS: dict[str, tuple[str, ...]] = {
    "Heads of trained models": ("attention_error", "real_heads", "transfer", "recommendation", "error_coverage"),
    "Every closed form": ("kernel_mse", "catalogue"),
    "Attention on random inputs": ("attention_matrix_error", "speed"),
    "Estimators": ("trig_vs_positive", "hybrid", "chefs_tables", "regularized_softmax"),
    "Couplings": ("orthogonal_gain", "simplex", "orthogonal_features", "quadrature"),
    "Tails and uniform error": ("tail_bounds", "uniform_convergence"),
    "Long inputs": ("compressed_stream", "language_model"),
    "Whole models": ("error_propagation", "training_stability", "long_range", "generalized_attention"),
    "Sampling": ("sampled_softmax",),
}

EXPERIMENTS: dict[str, Experiment] = {
    name: import_module(f"experiments.{name}").EXPERIMENT for names in GROUPS.values() for name in names
}
