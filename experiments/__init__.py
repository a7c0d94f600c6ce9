"""Experiments: one claim each, measured with error bars next to what theory predicts.

    python -m experiments list
    python -m experiments run NAME [--quick] [--out DIR] [--rng SEED] [--backend numpy|torch|jax|cupy]

An experiment is a frozen description (`experiments.experiment.Experiment`): cells of independent work, verdicts over
the numbers they return, and figures drawn from these numbers. To add one, write a module with an `EXPERIMENT` and name
it in `experiments.registry`.
"""
