"""`python -m experiments.benchmarks NAME ... [--quick] [--markdown FILE]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import terminal
from experiments.benchmarks import machine, markdown
from experiments.benchmarks.attention import attention_tables
from experiments.benchmarks.compressed import compressed_tables
from experiments.benchmarks.crossover import crossover_tables
from experiments.benchmarks.decoding import decode_tables
from experiments.benchmarks.features import feature_tables
from experiments.benchmarks.generation import generation_tables
from experiments.benchmarks.gpu import gpu_tables
from experiments.benchmarks.jax_tables import jax_tables
from experiments.benchmarks.memory import memory_tables
from experiments.benchmarks.pipelines import pipeline_tables
from experiments.benchmarks.ridge import ridge_tables
from experiments.benchmarks.scaling import scaling_tables
from experiments.benchmarks.timing import NotHere
from experiments.benchmarks.torch_tables import torch_tables

BENCHMARKS = {
    "attention": attention_tables,
    "compressed": compressed_tables,
    "torch": torch_tables,
    "jax": jax_tables,
    "generate": generation_tables,
    "scaling": scaling_tables,
    "memory": memory_tables,
    "features": feature_tables,
    "decode": decode_tables,
    "crossover": crossover_tables,
    "gpu": gpu_tables,
    "ridge": ridge_tables,
    "pipelines": pipeline_tables,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks and print their tables: medians, and ratios within one process, since absolute times vary.

    Exit code 2, with the reason in one line, if a benchmark cannot run on this machine.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks", description=main.__doc__)
    parser.add_argument("names", choices=sorted(BENCHMARKS), nargs="+", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, a few rounds")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as a section of a page, too")
    options = parser.parse_args(arguments)
    if options.markdown is not None and not options.markdown.parent.is_dir():
        parser.error(f"--markdown {options.markdown}: there is no directory {options.markdown.parent}.")
    load = machine.load()
    screen = terminal.console()
    all_tables, all_notes = [], []
    for name in options.names:
        try:
            tables, notes = BENCHMARKS[name](
                quick=options.quick, report=lambda line: print(line, file=sys.stderr, flush=True)
            )
        except NotHere as reason:
            print(reason, file=sys.stderr)
            return 2
        terminal.show_summaries(screen, tables)
        for note in notes:
            screen.print(note, markup=False, soft_wrap=True)
        all_tables += tables
        all_notes += notes
    about = machine.description(load)
    for item, value in about:
        screen.print(f"{item}: {value}", markup=False, soft_wrap=True)
    if options.markdown is not None:
        command = " ".join(["python -m experiments.benchmarks", *options.names, *["--quick"] * options.quick])
        text = markdown.page(command, about, all_tables, all_notes, quick=options.quick)
        options.markdown.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
