"""Complex features as pairs of real ones: what generalized and complex exponential features share."""

from randfeat._array import Array, namespace
from randfeat.features import Features, concatenate


def real_and_imaginary(log_modulus: Array, argument: Array, *, conjugate: bool) -> Features:
    """`[Re f, Im f]` of `f = exp(log_modulus + i argument)`, both (..., n, m); of its conjugate for keys."""
    xp = namespace(argument)
    sine = -xp.sin(argument) if conjugate else xp.sin(argument)
    return concatenate(Features(xp.cos(argument), log_modulus), Features(sine, log_modulus))


def in_modulus_and_argument(values: Array, gradient: Array, *, conjugate: bool) -> tuple[Array, Array]:
    """The derivatives in log_modulus and in argument (..., n, m), from those in the two values (..., n, 2m)."""
    half = gradient.shape[-1] // 2
    cosine, sine = values[..., :half], values[..., half:]
    in_cosine, in_sine = gradient[..., :half], gradient[..., half:]
    argument = sine * in_cosine - cosine * in_sine if conjugate else cosine * in_sine - sine * in_cosine
    return cosine * in_cosine + sine * in_sine, argument
