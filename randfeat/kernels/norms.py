"""Norms taken out of vectors, for kernels and features that are homogeneous in each input."""

from randfeat._array import Array, namespace, squared_norm


def split_norm(x: Array) -> tuple[Array, Array]:
    """`x/|x|` (..., d) and `log|x|` (..., 1); for a zero vector both are 0, as if its norm were 1."""
    xp = namespace(x)
    sqnorm = squared_norm(x)
    norm = xp.sqrt(xp.where(sqnorm == 0, xp.ones_like(sqnorm), sqnorm))
    return x / norm, xp.log(norm)
