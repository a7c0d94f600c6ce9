"""Timings against other implementations: `python -m experiments.benchmarks attention`."""
