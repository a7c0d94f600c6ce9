"""The spherical-radial rule of degree 3."""

from dataclasses import dataclass, field

from randfeat.couplings.antithetic import Antithetic
from randfeat.couplings.base import Coupling, register_coupling
from randfeat.couplings.orthogonal import Orthogonal


@dataclass(frozen=True)
class SphericalRadial(Antithetic):
    """Rows `±√d q_i`, q_i the rows of uniform (Haar) orthogonal matrices: antithetic orthogonal rows of constant norm.

    A quadrature rule with a random rotation. In every draw, the mean over each full block of 2d rows is exact for every
    polynomial of degree at most 3 in w, because `Σ_i q_i q_iᵀ = I` and odd degrees cancel.

    Any even number of rows; exactness needs a multiple of 2d. Rows are uniform on the sphere of radius √d, so softmax
    estimates are too small on average, from the fourth degree on. Mean and variance have closed forms, as for
    `Orthogonal(norms="constant")` with signs.
    For: arc-cosine kernels; the Gaussian kernel if a bias is accepted.
    Source: Munkhoeva et al. 2018, "Quadrature-based Features for Kernel Approximation" (theirs also has a random radius
    and a weight at 0).

    >>> import numpy as np
    >>> rows = SphericalRadial().sample(6, 3, rng=np.random.default_rng(0))
    >>> bool(np.allclose(rows.T @ rows / 6, np.eye(3)))
    True
    """

    base: Coupling | str = field(init=False, repr=False, default_factory=lambda: Orthogonal(norms="constant"))


register_coupling("spherical-radial", SphericalRadial)
