"""The command line of the comparison."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks.same_numbers.checkout import ROOT
from experiments.benchmarks.same_numbers.comparison import compare


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the numbers of two checkouts of the library, bit for bit, on NumPy arrays.

    Exit code 1 if a case differs, or exists in the other checkout only; cases of this one only are counted as new.
    Exit code 1, too, if more than one in ten of the random calls raise errors, which compare no numbers.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.same_numbers", description=main.__doc__)
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT", help="the directory that has the older randfeat/")
    parser.add_argument(
        "--this", type=Path, default=ROOT, metavar="CHECKOUT", help="the newer one; this one by default"
    )
    parser.add_argument("--calls", type=int, default=200, help="random calls of attention (default: %(default)s)")
    parser.add_argument("--rng", type=int, default=0, help="seed of the inputs and of the calls (default: %(default)s)")
    options = parser.parse_args(arguments)
    for checkout in (options.this, options.other):
        if not (checkout / "randfeat" / "__init__.py").is_file():
            parser.error(f"{checkout} has no randfeat/__init__.py; expected the root of a checkout.")
    comparison = compare(options.this, options.other, num_calls=options.calls, seed=options.rng)
    print("\n".join(comparison.lines()))
    return 0 if comparison.is_same else 1


if __name__ == "__main__":
    sys.exit(main())
