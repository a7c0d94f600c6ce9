"""The process that computes the numbers of one checkout: `python -P checkout.py CHECKOUT CALLS SEED`.

It writes a pickle for each case to its output as soon as it is computed: its name and its arrays.
"""

import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def main(checkout: str, num_calls: str, seed: str) -> None:
    """Import `randfeat` from the checkout, and everything else from here."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    sys.stdout = sys.stderr  # whatever is printed is no result
    import_library(Path(checkout).resolve())
    from experiments.benchmarks.same_numbers.results import attempt, named_arrays

    warnings.simplefilter("ignore")  # overflow in inputs that are meant to overflow
    with stream:
        for name, compute in all_cases(int(num_calls), int(seed)):
            pickle.dump((name, named_arrays(attempt(compute))), stream)


def import_library(checkout: Path) -> None:
    """Modules of the package are found beside its first one, so the checkout is on the path for that one only."""
    sys.path.insert(0, str(checkout))
    import randfeat

    if Path(randfeat.__file__).resolve().parents[1] != checkout:
        raise SystemExit(f"randfeat was imported from {randfeat.__file__}, expected {checkout}: is it a checkout?")
    sys.path[0] = str(ROOT)


def all_cases(num_calls: int, seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The catalogue, decisions and regression, then random calls of attention; nothing is computed yet."""
    from experiments.benchmarks.same_numbers import calls, catalogue, decisions

    yield from catalogue.kernel_cases(seed)
    yield from catalogue.coupling_cases(seed)
    yield from catalogue.estimator_cases(seed)
    yield from decisions.decision_cases(seed)
    for call in calls.random_calls(num_calls, seed):
        yield call.title, call.perform


if __name__ == "__main__":
    main(*sys.argv[1:])
