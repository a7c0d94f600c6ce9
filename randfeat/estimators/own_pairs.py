"""Pairs of rows that are one row: the row with itself, and with its negative."""

import math

from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw, SpherePair


def own_pair(law: PairLaw, name: str) -> int:
    """1 for the pair (w, w), -1 for (w, -w); NoClosedForm for two different rows, on behalf of the estimator `name`."""
    cosine = law.correlation if isinstance(law, GaussianPair) else getattr(law, "cosine", 0.0)
    if isinstance(law, GaussianPair | SpherePair) and abs(cosine) == 1:
        return int(cosine)
    raise NoClosedForm(
        f"the covariance of {name} at two different rows is not known under {law!r}; use independent or antithetic "
        "rows, or randfeat.montecarlo. The mean is exact under every coupling with exact marginals."
    )


def radial_factor(law: PairLaw, degree: int | None, name: str) -> float:
    """The mean of a function of one row, homogeneous of even degree, over that under N(0, I): 1 unless |w| = √d.

    A Gaussian row is χ_d u and a row of the sphere √d u, with the same direction u: `d^k / E[χ_d^{2k}]`, 2k the degree,
    and `E[χ_d^{2k}] = d (d + 2) ... (d + 2k - 2)`.
    """
    if isinstance(law, GaussianPair):
        return 1.0
    if isinstance(law, SpherePair) and degree is not None:
        return math.prod(law.dim / (law.dim + 2 * j) for j in range(degree // 2))
    raise NoClosedForm(f"the mean of {name} is not known for rows that are not N(0, I); use randfeat.montecarlo.")
