"""Arrays of other libraries that NumPy can read in place."""
