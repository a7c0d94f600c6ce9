"""Linear attention of PyTorch's tensors as one operation: of a recorded, a compiled or an exported graph."""
