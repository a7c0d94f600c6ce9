"""Predicted times of linear and exact attention: work, rates, their measurement, and the faster method."""
