"""The interface of a coupling, and the names that stand for couplings."""

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

from randfeat._hints import Hinted, choice_hint, described
from randfeat.couplings.laws import GaussianPair, NoClosedForm, PairLaw

_BY_NAME: dict[str, Callable[[], "Coupling"]] = {}


class Coupling(Hinted, abc.ABC):
    """The joint law of the rows `w_1 .. w_m` in R^d.

    A coupling draws rows, and states what a variance depends on: how many pairs of rows are dependent, and their joint
    law. An estimator that is unbiased for independent rows stays unbiased under every coupling with
    `exact_marginals`, because its mean depends on the law of single rows only.
    """

    @property
    def exact_marginals(self) -> bool:
        """Whether each row alone is exactly N(0, I_d)."""
        return True

    @property
    def rotation_invariant(self) -> bool:
        """Whether the joint law of the rows stays the same if all are rotated together."""
        return True

    @abc.abstractmethod
    def sample(self, num_rows: int, dim: int, *, rng: Any = None, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
        """Draw rows, float64 (*batch_shape, num_rows, dim); entries of the batch are independent.

        rng : as in SPEC 7: an int, SeedSequence, BitGenerator or Generator; None for fresh entropy.
        """

    def row_law(self, dim: int, num_rows: int | None = None) -> PairLaw:
        """The law of the pair (w, w), for a row w chosen at random; variances are computed from it.

        With `exact_marginals`, w is N(0, I). Raises ValueError if the law depends on the number of rows and `num_rows`
        is not given. Raises NoClosedForm if the law is not known.
        """
        if self.exact_marginals:
            return GaussianPair(correlation=1.0)
        raise NoClosedForm(
            f"a row of {self!r} is not N(0, I), and its law is not known; use randfeat.montecarlo.sample_errors."
        )

    def pair_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        """A list of (number of pairs, joint law): one entry for each kind of dependent pairs of different rows.

        (w_i, w_j) and (w_j, w_i) count as two pairs. All pairs that are not counted are independent.

        Raises NoClosedForm, naming what to use instead, if the joint law is not known.
        """
        if num_rows == 1:
            return []
        raise NoClosedForm(
            f"the joint law of two rows of {self!r} has no closed form; use randfeat.montecarlo.sample_errors."
        )

    def own_laws(self, num_rows: int, dim: int) -> list[tuple[float, PairLaw]]:
        """The pairs of each row with itself, as (number of pairs, law); with weights a pair counts m² weight²."""
        return [(num_rows, self.row_law(dim, num_rows))]

    def weights(self, num_rows: int, dim: int) -> np.ndarray | None:
        """Positive weights (num_rows,) of the rows, with sum 1, for quadrature rules; None for equal weights."""
        return None

    def nearest_num_rows(self, num_rows: int, dim: int | None = None) -> tuple[int, ...]:
        """Possible numbers of rows nearest to `num_rows`: `(num_rows,)` if that is possible itself.

        A coupling whose answer depends on `dim` accepts everything if `dim` is None; the draw then checks it again.
        """
        return (num_rows,)


def register_coupling(name: str, make: Callable[[], Coupling]) -> None:
    """Register `name` as a short form of `make()` wherever a coupling is expected."""
    _BY_NAME[name] = make


def coupling_names() -> list[str]:
    """Names of all registered couplings."""
    return sorted(_BY_NAME)


def if_coupling(thing: Any) -> str:
    """`; write coupling='simplex'` for a coupling or its name in the place of something else, or nothing."""
    is_coupling = isinstance(thing, Coupling) or (isinstance(thing, str) and thing in _BY_NAME)
    return f"; write coupling={thing!r}" if is_coupling else ""


def name_of(coupling: Any) -> str:
    """The name that stands for a coupling, or, where there is none, how it is written."""
    return next((name for name, make in _BY_NAME.items() if make() == coupling), repr(coupling))


def resolve_coupling(coupling: Any) -> Coupling:
    """A Coupling object as it is, or the coupling registered under a string."""
    if isinstance(coupling, Coupling):
        return coupling
    if isinstance(coupling, str):
        if coupling in _BY_NAME:
            return _BY_NAME[coupling]()
        hint = choice_hint(coupling, _BY_NAME, {})
        raise ValueError(
            f"unknown coupling {coupling!r}; expected one of {', '.join(map(repr, sorted(_BY_NAME)))}{hint}."
        )
    raise TypeError(f"coupling must be a Coupling or its name, got {described(coupling)}.")


def sampled_rows(
    coupling: Coupling, num_rows: int, dim: int, *, rng: np.random.Generator, batch_shape: tuple[int, ...] = ()
) -> np.ndarray:
    """`coupling.sample(...)`; ValueError if the rows do not have the shape that was asked for."""
    rows = coupling.sample(num_rows, dim, rng=rng, batch_shape=batch_shape)
    expected = (*batch_shape, num_rows, dim)
    if np.shape(rows) != expected:
        raise ValueError(
            f"the sample of {coupling!r} must have the shape (*batch_shape, num_rows, dim) = {expected}, got "
            f"{np.shape(rows)}; if it cannot draw this number of rows, override nearest_num_rows."
        )
    return rows


def haar_rows(num_rows: int, dim: int, *, rng: np.random.Generator, batch_shape: tuple[int, ...] = ()) -> np.ndarray:
    """Uniformly distributed orthonormal rows (*batch_shape, num_rows, dim), num_rows <= dim.

    Source: Mezzadri 2007, "How to generate random matrices from the classical compact groups".
    """
    return np.swapaxes(orthonormal_columns(rng.standard_normal((*batch_shape, dim, num_rows))), -1, -2)


def orthonormal_columns(matrix: np.ndarray) -> np.ndarray:
    """The factor Q (..., n, k) of the QR factorization of (..., n, k) in which R has a positive diagonal.

    This Q is unique, so rotating a matrix rotates its Q. Hence a rotation-invariant law of the matrix makes Q uniform.
    """
    q, r = np.linalg.qr(matrix)
    # LAPACK fixes the reflection signs (R has a negative diagonal); only Q·sign(diag R) is uniform.
    signs = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return q * signs[..., None, :]


def chi_norms(dim: int, size: tuple[int, ...], *, rng: np.random.Generator) -> np.ndarray:
    """Norms of N(0, I_dim) vectors, (*size, 1)."""
    return np.sqrt(rng.chisquare(dim, size=(*size, 1)))


def block_sizes(num_rows: int, dim: int) -> tuple[int, int]:
    """Split `num_rows` into (number of full blocks of `dim` rows, rows of the last, smaller block)."""
    return divmod(num_rows, dim)
