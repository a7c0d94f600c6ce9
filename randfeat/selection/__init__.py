"""Choosing features for given data: fit, rank, predict errors, diagnose denominators, list what exists."""
