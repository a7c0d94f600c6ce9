"""Antithetic rows: each row together with its negative."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from randfeat.couplings.base import Coupling, register_coupling, resolve_coupling
from randfeat.couplings.independent import Independent
from randfeat.couplings.laws import PairLaw
from randfeat.couplings.orthogonal import Orthogonal


@dataclass(frozen=True)
class Antithetic(Coupling):
    """Rows `w_1 .. w_n, -w_1 .. -w_n`, where `w_1 .. w_n` follow the coupling `base`.

    base : the coupling of the first n rows, `Independent()` by default; `Orthogonal()` for antithetic orthogonal rows.

    Each row has the same law as under `base`. The number of rows must be even. All terms of odd degree cancel from the
    error. Even estimators (trigonometric, hyperbolic) gain nothing: for them w and -w are the same row, used twice.
    For: positive features: with orthogonal rows and 2d features the least variance up to |x + y|² = 4.
    Source: Choromanski et al. 2021 (hyp+), Lemma 2, is this coupling of the positive estimator.

    >>> rows = Antithetic().sample(4, 2, rng=np.random.default_rng(0))
    >>> bool(np.all(rows[:2] == -rows[2:]))
    True
    """

    base: Coupling | str = field(default_factory=Independent)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", resolve_coupling(self.base))

    @property
    def exact_marginals(self) -> bool:
        return self._base.exact_marginals

    @property
    def rotation_invariant(self) -> bool:
        return self._base.rotation_invariant

    @property
    def _base(self) -> Coupling:
        assert isinstance(self.base, Coupling)  # resolved in __post_init__
        return self.base

    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        if num_rows % 2:
            raise ValueError(f"antithetic rows come in pairs: expected an even number of rows, got {num_rows}.")
        rows = self._base.sample(num_rows // 2, dim, rng=rng, batch_shape=batch_shape)
        return np.concatenate([rows, -rows], axis=-2)

    def row_law(self, dim: int, num_rows: int | None = None) -> PairLaw:
        return self._base.row_law(dim, None if num_rows is None else num_rows // 2)

    def own_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        return [(2 * count, law) for count, law in self._base.own_laws(num_rows // 2, dim)]

    def weights(self, num_rows: int, dim: int) -> np.ndarray | None:
        weights = self._base.weights(num_rows // 2, dim)
        return None if weights is None else np.concatenate([weights, weights]) / 2

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        laws = [(2 * count, law.negated()) for count, law in self._base.own_laws(num_rows // 2, dim)]
        for count, law in self._base.pair_laws(num_rows // 2, dim):
            laws += [(2 * count, law), (2 * count, law.negated())]
        return laws

    def nearest_num_rows(self, num_rows: int, dim: int | None = None) -> tuple[int, ...]:
        below = {2 * n for n in self._base.nearest_num_rows(max(num_rows // 2, 1), dim)}
        above = {2 * n for n in self._base.nearest_num_rows((num_rows + 1) // 2, dim)}
        return (num_rows,) if num_rows in below else tuple(sorted(n for n in below | above if n > 0))


register_coupling("antithetic", Antithetic)
register_coupling("antithetic-orthogonal", lambda: Antithetic(Orthogonal()))
