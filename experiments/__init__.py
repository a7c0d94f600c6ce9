"""Experiments: one claim each, measured with error bars next to what theory predicts.

    python -m experiments list
    python -m experiments run NAME... | all [--quick] [--out DIR] [--workers N | --dask ADDRESS] [--resume] ...
    python -m experiments report [DIR]
    python -m experiments publish NAME...
    python -m experiments figures [NAME...]

An experiment is a frozen description (`experiments.experiment.Experiment`): cells of independent work, verdicts over
the numbers they return, and figures drawn from these numbers. Those of this folder are named in `experiments.registry`;
one that lives elsewhere runs as `module:ATTRIBUTE`.
"""
