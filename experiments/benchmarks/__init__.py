"""Timings against other implementations (`python -m experiments.benchmarks attention`), and of exact against linear."""
