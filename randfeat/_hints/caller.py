"""Warnings that point at the line of the user, whatever lies between."""

import sys
import warnings

BETWEEN = {"randfeat", "functools", "contextlib", "sklearn"}
"""Packages whose frames are not the user's: decorators, cached properties, pipelines."""


def warn_caller(message: str, category: type[Warning]) -> None:
    """`warnings.warn` for the first frame outside of this library and of what calls it for the user."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
