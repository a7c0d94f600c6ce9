"""The process that computes the numbers of one checkout: `python -P checkout.py CHECKOUT OUTPUT`, a request on stdin.

The request is JSON, `{"calls": number, "rng": seed, "names": null or list}`. Without names the output is JSON, the
digests and the errors of all cases; with names it is an `.npz` of the arrays of these cases.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SEPARATOR = "|"


def main(checkout: str, output: str) -> None:
    """Import `randfeat` from the checkout, and everything else from here."""
    import_library(Path(checkout).resolve())
    warnings.simplefilter("ignore")  # overflow in inputs that are meant to overflow
    request = json.load(sys.stdin)
    if request["names"] is None:
        Path(output).write_text(json.dumps(digests(request)), encoding="utf-8")
    else:
        save_arrays(request, output)


def import_library(checkout: Path) -> None:
    """Modules of the package are found beside its first one, so the checkout is on the path for that one only."""
    sys.path.insert(0, str(checkout))
    import randfeat

    if Path(randfeat.__file__).resolve().parents[1] != checkout:
        raise SystemExit(f"randfeat was imported from {randfeat.__file__}, expected {checkout}: is it a checkout?")
    sys.path[0] = str(ROOT)


def digests(request: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The digest of every case, and the errors of those that have raised one."""
    from experiments.benchmarks.same_numbers.cases import all_cases
    from experiments.benchmarks.same_numbers.digests import digest, error_of, named_arrays

    found: dict[str, str] = {}
    errors: dict[str, str] = {}
    for name, compute in all_cases(request["calls"], request["rng"]):
        assert name not in found, name
        arrays = named_arrays(compute())
        found[name] = digest(arrays)
        error = error_of(arrays)
        if error is not None:
            errors[name] = error
    return {"digests": found, "errors": errors}


def save_arrays(request: dict[str, Any], output: str) -> None:
    """The arrays of the cases that are named in the request."""
    import numpy as np

    from experiments.benchmarks.same_numbers.cases import all_cases
    from experiments.benchmarks.same_numbers.digests import named_arrays

    wanted = {name: str(number) for number, name in enumerate(request["names"])}
    arrays = {
        f"{wanted[name]}{SEPARATOR}{part}": array
        for name, compute in all_cases(request["calls"], request["rng"])
        if name in wanted
        for part, array in named_arrays(compute()).items()
    }
    np.savez(output, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
