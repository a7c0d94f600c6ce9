"""The experiments of this repository: one entry each, the name of a module here that has an `EXPERIMENT`."""

from importlib import import_module

from experiments.experiment import Experiment

QUESTIONS: dict[str, tuple[str, ...]] = {
    "How accurate is attention on heads of trained models?": (
        "attention_error",
        "real_heads",
        "transfer",
        "recommendation",
        "error_coverage",
    ),
    "Are the closed forms right?": ("kernel_mse", "catalogue"),
    "What do length and the size of inputs change?": ("attention_matrix_error", "speed"),
    "Which features have the smallest error?": ("trig_vs_positive", "hybrid", "chefs_tables", "regularized_softmax"),
    "Which couplings have the smallest error?": ("orthogonal_gain", "simplex", "orthogonal_features", "quadrature"),
    "How likely are large errors?": ("tail_bounds", "uniform_convergence"),
    "Does a stream stay accurate in constant memory?": ("compressed_stream", "language_model"),
    "What happens in whole models?": ("error_propagation", "training_stability", "long_range", "generalized_attention"),
    "Can classes be drawn without all logits?": ("sampled_softmax",),
    "Which features for regression and classification?": ("data_sets",),
}

EXPERIMENTS: dict[str, Experiment] = {
    name: import_module(f"experiments.{name}").EXPERIMENT for names in QUESTIONS.values() for name in names
}
