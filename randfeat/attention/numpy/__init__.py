"""Linear attention of NumPy arrays for features that are exponentials: blocks in cache, heads on threads."""
