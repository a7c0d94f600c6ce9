"""The interface of a coupling, and the names under which couplings are known."""

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

from randfeat.couplings.laws import PairLaw

__all__ = ["Coupling", "coupling_names", "haar_rows", "register_coupling", "resolve_coupling"]

_BY_NAME: dict[str, Callable[[], "Coupling"]] = {}


class Coupling(abc.ABC):
    """The joint law of the rows `w_1 .. w_m` in R^d.

    A coupling samples, and it answers the only question that a variance asks: which pairs of rows are dependent, how
    many, and how. An estimator that is unbiased for independent rows stays unbiased under every coupling whose
    `exact_marginals` is true, because its mean sees one row at a time.
    """

    @property
    def exact_marginals(self) -> bool:
        """Whether each row alone is exactly N(0, I_d)."""
        return True

    @property
    def rotation_invariant(self) -> bool:
        """Whether rows rotated together have the same joint law."""
        return True

    @abc.abstractmethod
    def sample(
        self, num_rows: int, dim: int, *, rng: np.random.Generator, batch_shape: tuple[int, ...] = ()
    ) -> np.ndarray:
        """Rows, float64 (*batch_shape, num_rows, dim); batch entries are independent."""

    @abc.abstractmethod
    def row_law(self, dim: int, num_rows: int | None = None) -> PairLaw:
        """The law of the pair (w, w): one row with itself, in the mean over rows.

        Where it depends on the number of rows, and that is not given, a ValueError; where it is not known,
        NoClosedForm.
        """

    @abc.abstractmethod
    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        """The dependent ordered pairs of different rows, as (how many, their joint law); the others are independent.

        NoClosedForm, naming what to use instead, where the joint law is not known.
        """

    def own_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        """The pairs of each row with itself, as (how many, their law); with weights a pair counts m² weight²."""
        return [(num_rows, self.row_law(dim, num_rows))]

    def weights(self, num_rows: int, dim: int) -> np.ndarray | None:
        """Positive weights (num_rows,) of the rows, with sum 1, for quadrature rules; None for equal weights."""
        return None

    def nearest_num_rows(self, num_rows: int, dim: int | None = None) -> tuple[int, ...]:
        """The numbers of rows nearest to `num_rows` that this coupling can have: `(num_rows,)` if it can.

        A coupling that needs `dim` to know allows everything without it, and is asked again with it at the draw.
        """
        return (num_rows,)


def register_coupling(name: str, make: Callable[[], Coupling]) -> None:
    """Let `name` stand for `make()` wherever a coupling is expected."""
    _BY_NAME[name] = make


def coupling_names() -> list[str]:
    """The names that stand for couplings."""
    return sorted(_BY_NAME)


def resolve_coupling(coupling: Any) -> Coupling:
    """The coupling itself, or the one that a string names."""
    if isinstance(coupling, Coupling):
        return coupling
    if isinstance(coupling, str):
        if coupling in _BY_NAME:
            return _BY_NAME[coupling]()
        raise ValueError(f"unknown coupling {coupling!r}; expected one of {', '.join(map(repr, sorted(_BY_NAME)))}.")
    raise TypeError(f"coupling must be a Coupling or its name, got {type(coupling).__name__}.")


def haar_rows(num_rows: int, dim: int, *, rng: np.random.Generator, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
    """Uniformly distributed orthonormal rows (*batch_shape, num_rows, dim), num_rows <= dim.

    Source: Mezzadri 2007, "How to generate random matrices from the classical compact groups".
    """
    return np.swapaxes(orthonormal_columns(rng.standard_normal((*batch_shape, dim, num_rows))), -1, -2)


def orthonormal_columns(matrix: np.ndarray) -> np.ndarray:
    """The factor Q (..., n, k) of the QR factorization of (..., n, k) in which R has a positive diagonal.

    It is unique, so rotations of a matrix rotate its Q: a rotation-invariant law of matrices makes Q uniform.
    """
    q, r = np.linalg.qr(matrix)
    # LAPACK fixes the reflection signs (R has a negative diagonal); only Q·sign(diag R) is uniform.
    signs = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return q * signs[..., None, :]


def chi_norms(dim: int, size: tuple[int, ...], *, rng: np.random.Generator) -> np.ndarray:
    """Norms of N(0, I_dim) vectors, with a last axis of length one: (*size, 1)."""
    return np.sqrt(rng.chisquare(dim, size=(*size, 1)))


def block_sizes(num_rows: int, dim: int) -> tuple[int, int]:
    """`num_rows` as (full blocks of `dim` rows, rows of the last, smaller block)."""
    return divmod(num_rows, dim)
