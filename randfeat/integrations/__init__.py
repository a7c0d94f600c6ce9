"""What needs one particular library; each module is imported only by those who ask for it."""
