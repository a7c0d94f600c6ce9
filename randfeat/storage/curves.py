"""Error curves in files. The module of Monte Carlo is imported when a curve is at hand, not before."""

import sys
from typing import Any

import numpy as np

FIELDS = ("names", "num_features", "num_draws", "measured", "closed_forms", "squares", "average_error")


def is_curve(obj: Any) -> bool:
    """Whether the object is an `ErrorCurve`; none exists before its module is imported."""
    module = sys.modules.get("randfeat.montecarlo.curve")
    return module is not None and isinstance(obj, module.ErrorCurve)


def plain(curve: Any) -> dict[str, Any]:
    """The numbers of a curve, in dictionaries of arrays."""
    fields = {name: getattr(curve, name) for name in FIELDS}
    return fields | {"measured": {name: (m.value, m.standard_error) for name, m in curve.measured.items()}}


def curve_of(fields: Any) -> Any:
    """The curve of these numbers; ValueError if they do not fit one another."""
    from randfeat.montecarlo import ErrorCurve, Measured

    if not isinstance(fields, dict) or set(fields) != set(FIELDS):
        raise ValueError(f"a curve has the fields {', '.join(FIELDS)}.")
    names, widths, num_draws = fields["names"], fields["num_features"], fields["num_draws"]
    measured, closed_forms = fields["measured"], fields["closed_forms"]
    if not (isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)):
        raise ValueError(f"names must be a tuple of strings, got {names!r}.")
    if not (isinstance(widths, np.ndarray) and widths.ndim == 1 and np.issubdtype(widths.dtype, np.integer)):
        raise ValueError("num_features must be a row of integers.")
    if type(num_draws) is not int or num_draws < 2 or type(fields["average_error"]) is not float:
        raise ValueError("num_draws must be an int of at least 2, and average_error a float.")
    shape = len(names), len(widths)
    if not (isinstance(measured, dict) and measured and isinstance(closed_forms, dict)):
        raise ValueError("measured and closed_forms must be dictionaries.")
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in measured.values()):
        raise ValueError("each measure must be a pair of values and standard errors.")
    tables = [*(x for pair in measured.values() for x in pair), *closed_forms.values()]
    for array, expected in [*((x, shape) for x in tables), (fields["squares"], (*shape, num_draws))]:
        if not (isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == expected):
            raise ValueError(f"a curve of {shape[0]} names and {shape[1]} widths has tables of shape {expected}.")
    return ErrorCurve(**fields | {"measured": {name: Measured(*pair) for name, pair in measured.items()}})
