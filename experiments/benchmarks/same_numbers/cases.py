"""All cases: names, and functions that compute the numbers."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from experiments.benchmarks.same_numbers.calls import random_calls
from experiments.benchmarks.same_numbers.catalogue import coupling_cases, estimator_cases, kernel_cases
from experiments.benchmarks.same_numbers.decisions import decision_cases
from experiments.benchmarks.same_numbers.performing import perform

__all__ = ["Case", "all_cases"]

Case = tuple[str, Callable[[], Any]]


def all_cases(num_calls: int, seed: int) -> Iterator[Case]:
    """The catalogue, decisions and regression, then random calls of attention; nothing is computed yet."""
    yield from kernel_cases(seed)
    yield from coupling_cases(seed)
    yield from estimator_cases(seed)
    yield from decision_cases(seed)
    for call in random_calls(num_calls, seed):
        yield call.title, functools.partial(perform, call)
