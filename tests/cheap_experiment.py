"""An experiment of forty cells that take milliseconds, for tests of the runner: its numbers are awkward on purpose.

`python -m tests.cheap_experiment` reads command lines of `python -m experiments` from standard input and runs each in a
fork of its own, so that a process which a test kills starts in no time. It prints the process id, then what
`os.waitpid` says; the output of the last command is in the file OUTPUT.
"""

import json
import math
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.experiment import Cell, Experiment, Settings, Summary, Verdict


@dataclass(frozen=True)
class CheapSettings(Settings):
    """log : file that gets a line whenever a cell is measured. raising, killing : cells that do so, how many times."""

    num_cells: int = 40
    pause: float = 0.01
    log: str = ""
    raising: tuple[tuple[int, int], ...] = ()
    killing: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class CheapCell(Cell):
    """Rows that depend on the index and the seed; the key is no file name, and differs from others only at its end."""

    index: int
    name: str = f"cell/of a <cheap> & long name, {'x' * 60}"

    @property
    def key(self):
        return f"{self.name} {self.index}"

    def measure(self, settings):
        """Two tables."""
        if settings.log:
            with Path(settings.log).open("a") as file:
                file.write(f"{self.index}\n")
            times = Path(settings.log).read_text().split().count(str(self.index))
            if times <= dict(settings.raising).get(self.index, 0):
                raise ArithmeticError(f"no luck with {self.index}")
            if times <= dict(settings.killing).get(self.index, 0):
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(settings.pause)
        rng = settings.rng(self.key)
        special = (math.nan, math.inf, -math.inf, -0.0, 5e-324, np.float32(0.1))[self.index % 6]
        rows = [{"index": np.int64(self.index), "x": x, "special": special} for x in rng.standard_normal(3)]
        product = rng.standard_normal((70, 70)) @ rng.standard_normal((70, 70))  # its sums depend on the threads
        text = ("NaN", 'a "quoted", text', "é\n", None)[self.index % 4]
        return {"numbers": rows, "others": [{"sum": product.sum(), "flag": np.bool_(self.index % 2), "text": text}]}


def verdicts(tables, settings):
    """One that holds, and one that is reported, with characters that HTML has a meaning for."""
    total = sum(row["x"] for row in tables["numbers"])
    return [
        Verdict("rows < of & every <script>alert('cell')</script>", "3 × cells", str(len(tables["numbers"])), True),
        Verdict("the sum", "nothing claimed", repr(total), None),
    ]


def summaries(tables, settings):
    """The first few numbers."""
    rows = tuple((str(row["index"]), f"{row['x']:.3f}") for row in tables["numbers"][:4])
    return [Summary("numbers <b>", ("index", "x & y"), rows, (2,))]


EXPERIMENT = Experiment(
    name="cheap",
    claim='A claim with <b>markup</b> & "quotes".',
    settings=CheapSettings(log=os.environ.get("CHEAP_LOG", "")),
    quick=CheapSettings(num_cells=5),
    full=CheapSettings(num_cells=6),
    cells=lambda settings: [CheapCell(index) for index in range(settings.num_cells)],
    verdicts=verdicts,
    summaries=summaries,
    plot=lambda results: {},
)


def serve(output):
    """Run each command line in a fork."""
    from experiments import provenance, run  # noqa: F401 (so that the forks have it)
    from experiments.command_line import main
    from experiments.registry import EXPERIMENTS
    from tests.cheap_experiment import EXPERIMENT  # by this name, not as part of __main__

    EXPERIMENTS["cheap"] = EXPERIMENT
    provenance.code_digest(EXPERIMENT.cells.__module__)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            code = 70
            try:
                code = main(json.loads(line))
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    serve(os.environ["OUTPUT"])
