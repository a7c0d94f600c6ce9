"""Special functions of the normal law in array API operations: erf, and the normal distribution function.

The array API standard has none of them. On x >= 0 the scaled complementary error function
`erfcx(x) = exp(x²) erfc(x)` falls from 1 like `1/(√π x)`; `(1 + 2x) erfcx(x)` is one polynomial in
`t = (x - 3)/(x + 3)` on the whole half-line, and everything else follows from it without cancellation. Near 0 erf is
its power series.

Accuracy: a few units in the last place of float32 or float64; the far left tail of `normal_cdf` carries the rounding
of its exponent, a relative error of a²/2 units.

Source: Shepherd & Laframboise 1981, "Chebyshev approximation of (1+2x)exp(x²)erfc x in 0 <= x < ∞" (the form; the
coefficients here have the degree that float64 needs).
"""

import math
from collections.abc import Sequence

from randfeat._array import Array, namespace

# (1 + 2x) erfcx(x) in powers of t = (x - 3)/(x + 3): its Chebyshev series to degree 24, error below 3e-18, rearranged;
# the absolute values of the coefficients add up to 1.8, so Horner's rule loses nothing.
SCALED_COMPLEMENT = (
    1.2530080582697296,
    -0.13562110612458117,
    -0.0475622943534492,
    0.1296451587027594,
    -0.11927366341538638,
    0.0683080273440099,
    -0.02377051491717134,
    0.0025293918156939696,
    0.0018886903449991718,
    -0.0007798322696543306,
    -0.00010515971958448065,
    0.0001250993424583729,
    4.949196649968345e-06,
    -2.0100542268525612e-05,
    -7.308281468783614e-07,
    3.472370944977168e-06,
    3.5576086684080595e-07,
    -6.166011460398726e-07,
    -1.4047654315428462e-07,
    1.0183620603842736e-07,
    4.1064013667940355e-08,
    -1.3312919661038687e-08,
    -8.217595058711455e-09,
    9.862533510345587e-10,
    8.393734858690877e-10,
)

# erf(x) / x in powers of x², |x| <= 1/2.
SMALL_SERIES = tuple(2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(13))


def horner(coefficients: Sequence[float], x: Array) -> Array:
    """Polynomial `Σ_k coefficients[k] x^k` by Horner's rule."""
    total = namespace(x).full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def erfcx(x: Array) -> Array:
    """Scaled complementary error function `exp(x²) erfc(x)` for x >= 0."""
    return horner(SCALED_COMPLEMENT, 1 - 6 / (x + 3)) / (1 + 2 * x)


def erf(x: Array) -> Array:
    """Error function `2/√π ∫_0^x e^{-t²} dt`."""
    xp = namespace(x)
    size = xp.abs(x)
    small = size <= 0.5
    inner = xp.where(small, x, xp.zeros_like(x))  # so that the powers of large arguments cannot overflow
    tail = xp.sign(x) * (1 - xp.exp(-size * size) * erfcx(size))
    return xp.where(small, inner * horner(SMALL_SERIES, inner * inner), tail)


def normal_cdf(x: Array) -> Array:
    """Φ(x), the standard normal distribution function, accurate in the left tail."""
    xp = namespace(x)
    tail = xp.exp(-x * x / 2) * erfcx(xp.abs(x) / math.sqrt(2)) / 2
    return xp.where(x < 0, tail, 1 - tail)


def log_normal_cdf(x: Array) -> Array:
    """`log Φ(x)`, finite wherever `x²` is."""
    xp = namespace(x)
    scaled = erfcx(xp.abs(x) / math.sqrt(2)) / 2
    return xp.where(x < 0, xp.log(scaled) - x * x / 2, xp.log1p(-xp.exp(-x * x / 2) * scaled))
