"""Passes over a sequence in array API operations, on any array library: the naive twin of all faster ones."""
