"""Parts of the fast paths for NumPy arrays: threads, cache-sized blocks, fast elementary functions."""
