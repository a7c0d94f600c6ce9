"""Two checkouts compared, case by case."""

import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments.benchmarks.same_numbers import checkout
from experiments.benchmarks.same_numbers.results import Arrays, error_of, largest_difference

ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL", "VECLIB_MAXIMUM", "RANDFEAT")
}  # sums of BLAS may depend on its threads
MOST_ERRORS = 0.1  # of the random calls


@dataclass
class Comparison:
    """Equal cases counted; all others by their names.

    differences : the largest relative difference of a case, and the part that it is in. errors : of random calls.
    new, gone : cases of this checkout only, and of the other one only.
    """

    num_calls: int
    num_equal: int = 0
    differences: dict[str, tuple[float, str]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def add(self, name: str, ours: Arrays, theirs: Arrays) -> None:
        difference, error = largest_difference(ours, theirs), error_of(ours)
        if difference is None:
            self.num_equal += 1
        else:
            self.differences[name] = difference
        if error is not None and name.startswith("call "):
            self.errors[name] = error

    @property
    def compares_little(self) -> bool:
        return len(self.errors) > MOST_ERRORS * self.num_calls

    @property
    def is_same(self) -> bool:
        """Whether every case of the other checkout is here, with the same numbers, which most calls have."""
        return not (self.differences or self.gone or self.compares_little)

    def lines(self) -> list[str]:
        total = self.num_equal + len(self.differences) + len(self.gone)
        lines = [f"{total} cases, {self.num_equal} equal, {len(self.differences)} differ"]
        for name, (relative, where) in sorted(self.differences.items(), key=lambda item: -item[1][0]):
            lines.append(f"differs by {relative:.1e}: {name} ({where})")
        lines += [f"gone: {name}" for name in self.gone]
        lines += [f"new: {len(self.new)} cases, {self.new[0]} for example"] if self.new else []
        if self.compares_little:
            lines.append(f"{len(self.errors)} of {self.num_calls} random calls raise errors, so they compare little:")
            lines += [f"{name}: {error}" for name, error in self.errors.items()]
        return lines


def compare(this: Path, other: Path, *, num_calls: int, seed: int) -> Comparison:
    """Both checkouts in a process each, at the same time; neither gets far ahead of the other."""
    comparison = Comparison(num_calls)
    ours: dict[str, Arrays] = {}  # cases that wait for the same one of the other checkout
    theirs: dict[str, Arrays] = {}
    command = [sys.executable, "-P", str(Path(checkout.__file__).resolve())]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ONE_THREAD
    processes = [
        subprocess.Popen([*command, str(root), str(num_calls), str(seed)], stdout=subprocess.PIPE, env=environment)
        for root in (this, other)
    ]
    try:
        for pair in itertools.zip_longest(*map(results_of, processes)):
            for cases, found in zip((ours, theirs), pair, strict=True):
                if found is not None:
                    cases[found[0]] = found[1]
            for name in ours.keys() & theirs.keys():
                comparison.add(name, ours.pop(name), theirs.pop(name))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    comparison.new, comparison.gone = list(ours), list(theirs)
    return comparison


def results_of(process: subprocess.Popen[bytes]) -> Iterator[tuple[str, Arrays]]:
    """The cases of a checkout, as they are computed."""
    assert process.stdout is not None
    with process.stdout as stream:
        while stream.peek(1):  # type: ignore[attr-defined]
            yield pickle.load(stream)
    if process.wait():
        raise SystemExit("the numbers of a checkout could not be computed; its error is above.")
