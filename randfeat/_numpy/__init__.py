"""What only the fast paths of NumPy arrays need: threads, blocks that stay in cache, and quick elementary functions."""
