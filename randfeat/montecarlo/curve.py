"""ErrorCurve: measured errors of several estimators against the number of features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from randfeat._hints import shown
from randfeat.montecarlo.measured import Measured, ratio_of_means


@dataclass(frozen=True, eq=False, repr=False)
class ErrorCurve:
    """Errors of estimators (rows) for several numbers of features (columns); `print` shows one measure as a table.

    names : one for each estimator. num_features (n,) : the widths. num_draws : the draws of each cell.
    measured : `Measured` numbers (estimators, n) by the name of the measure, as `error_curve` lists them.
    closed_forms : numbers (estimators, n) of the measures that have a closed form; NaN where none is known.
    squares (estimators, n, num_draws) : the relative squared error of each draw, a mean over pairs or over heads. Draws
        are paired: draw r of all estimators has the same seed.
    average_error : the `error` of the output that needs no features, the plain average of the values that each query
        sees; NaN for kernel values.

    `curve["relative_mse"]` is one measure. `curve.columns()` are the columns of a table with one line for each number,
    `pandas.DataFrame(curve.columns())` for example. `rf.save` takes it, and `rf.plotting.plot_error_curve` draws it.
    """

    names: tuple[str, ...]
    num_features: np.ndarray
    num_draws: int
    measured: dict[str, Measured]
    closed_forms: dict[str, np.ndarray]
    squares: np.ndarray
    average_error: float = np.nan

    def __repr__(self) -> str:
        return f"ErrorCurve({', '.join(self.names)}; num_features={self.num_features.tolist()}, {self.num_draws} draws)"

    def __getitem__(self, measure: str) -> Measured:
        if measure not in self.measured:
            raise ValueError(f"measure must be one of {', '.join(self.measured)}, got {shown(measure)}.")
        return self.measured[measure]

    def __str__(self) -> str:
        return self.table(next(iter(self.measured)))

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures."""
        return tuple(self.measured)

    def table(self, measure: str) -> str:
        """One measure with its standard errors, a line for each estimator; below it the closed form, if it is known."""
        measured = self[measure]
        exact = self.closed_forms.get(measure, np.full(self.squares.shape[:2], np.nan))
        rows = [[measure, *(f"{m} features" if i == 0 else str(m) for i, m in enumerate(self.num_features))]]
        for name, value, error, known in zip(self.names, measured.value, measured.standard_error, exact, strict=True):
            rows.append([name, *(f"{v:.3g} ± {e:.1g}" for v, e in zip(value, error, strict=True))])
            if not np.all(np.isnan(known)):
                rows.append(["  closed form", *("" if np.isnan(x) else f"{x:.3g}" for x in known)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        padded = [[f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows]
        lines = ["  ".join(row).rstrip() for row in padded]
        if measure == "error":
            lines.append(f"average of the values: {self.average_error:.3g}")
        return "\n".join([*lines, f"{self.num_draws} draws; ± is one standard error"])

    def columns(self) -> dict[str, np.ndarray]:
        """Columns of equal length: estimator, num_features, measure, value, standard_error, closed_form."""
        lines = list(self._lines())
        names = ("estimator", "num_features", "measure", "value", "standard_error", "closed_form")
        return {name: np.asarray([line[i] for line in lines]) for i, name in enumerate(names)}

    def _lines(self) -> Iterator[tuple[Any, ...]]:
        for measure, measured in self.measured.items():
            exact = self.closed_forms.get(measure)
            for i, name in enumerate(self.names):
                for j, width in enumerate(self.num_features):
                    known = np.nan if exact is None else exact[i, j]
                    yield name, width, measure, measured.value[i, j], measured.standard_error[i, j], known

    def ratio(self, first: str | int, second: str | int) -> Measured:
        """Relative MSE of one estimator over that of another, for each number of features.

        first, second : their names, or their places among `names`.

        Draws are paired, and the standard error respects that (delta method over draws). So it is smaller than that of
        two independent curves where both estimators have the same rows.
        """
        return ratio_of_means(*(self.squares[self._place(name)].T for name in (first, second)))

    def _place(self, name: Any) -> int:
        """The row of the estimator with this name, or at this place."""
        if isinstance(name, str) and name in self.names:
            return self.names.index(name)
        places = range(-len(self.names), len(self.names))
        if isinstance(name, int | np.integer) and not isinstance(name, bool) and name in places:
            return int(name)
        raise ValueError(
            f"there is no curve of {shown(name)}, only of {', '.join(self.names)}; or give places from 0 to "
            f"{len(self.names) - 1}."
        )
