"""Timings: against other implementations (`python -m experiments.benchmarks attention`), and of our own two methods."""
