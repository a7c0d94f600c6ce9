"""`python -m experiments.benchmarks attention|crossover [--quick]`."""

import argparse
import os
import platform
import sys
from collections.abc import Sequence

from experiments import terminal
from experiments.benchmarks.attention import attention_tables
from experiments.benchmarks.crossover import crossover_tables

BENCHMARKS = {"attention": attention_tables, "crossover": crossover_tables}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark and print its tables. Medians and ratios within one process; absolute times wander."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks", description=main.__doc__)
    parser.add_argument("name", choices=sorted(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="the smallest size, a few rounds")
    options = parser.parse_args(arguments)
    screen = terminal.console()
    tables, notes = BENCHMARKS[options.name](
        quick=options.quick, report=lambda line: print(line, file=sys.stderr, flush=True)
    )
    terminal.show_summaries(screen, tables)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    for note in [f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores{load}", *notes]:
        screen.print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
