"""Rows that are orthogonal within blocks."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from randfeat._array import as_generator
from randfeat._hints import short
from randfeat.couplings.base import Coupling, block_sizes, chi_norms, haar_rows, register_coupling
from randfeat.couplings.laws import PairLaw, RadialPair, SpherePair


@dataclass(frozen=True)
class Orthogonal(Coupling):
    """Rows orthogonal within blocks of d: `w_i = r_i q_i`, q_1 .. q_d the rows of a uniform (Haar) orthogonal matrix.

    norms : "chi", r_i ~ χ_d independent of each other and of the directions: each row alone is exactly N(0, I_d).
        "constant", r_i = √d: rows uniform on the sphere of radius √d. Softmax estimates are then too small on
        average (the regularized softmax kernel); `estimator.mean(x, y)` is their mean in closed form.

    Any number of rows: blocks are independent, the last may have fewer than d rows. Dependent ordered pairs of
    m = Jd + r rows: J d (d-1) + r (r-1). Cost: one d × d QR per block.
    For: all features: the default.
    Source: Yu et al. 2016, "Orthogonal Random Features"; Choromanski et al. 2021, "Rethinking Attention with
    Performers" (for positive features; constant norms are its SMREG).

    >>> rows = Orthogonal().sample(3, 3, rng=np.random.default_rng(0))
    >>> bool(np.allclose(rows @ rows.T, np.diag(np.sum(rows**2, axis=1))))
    True
    """

    norms: Literal["chi", "constant"] = "chi"

    def __post_init__(self) -> None:
        if self.norms not in ("chi", "constant"):
            raise ValueError(f"norms must be 'chi' or 'constant', got {short(self.norms)}.")

    @property
    def exact_marginals(self) -> bool:
        return self.norms == "chi"

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        rng = as_generator(rng)
        blocks, rest = block_sizes(num_rows, dim)
        directions = haar_rows(dim, dim, rng=rng, batch_shape=(*batch_shape, blocks))
        directions = directions.reshape(*batch_shape, blocks * dim, dim)
        if rest:
            directions = np.concatenate([directions, haar_rows(rest, dim, rng=rng, batch_shape=batch_shape)], axis=-2)
        if self.norms == "constant":
            return np.sqrt(dim) * directions
        return chi_norms(dim, (*batch_shape, num_rows), rng=rng) * directions

    def row_law(self, dim: int, num_rows: int | None = None) -> PairLaw:
        return super().row_law(dim) if self.exact_marginals else SpherePair(dim, cosine=1.0)

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        blocks, rest = block_sizes(num_rows, dim)
        law = RadialPair(dim, cosine=0.0) if self.norms == "chi" else SpherePair(dim, cosine=0.0)
        count = blocks * dim * (dim - 1) + rest * (rest - 1)
        return [(count, law)] if count else []


register_coupling("orthogonal", Orthogonal)
register_coupling("orthogonal-constant", lambda: Orthogonal(norms="constant"))
