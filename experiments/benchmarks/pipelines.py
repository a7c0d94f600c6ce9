"""Time and memory of ridge regression on random features, and of the pipelines of scikit-learn of `data_sets`.

The experiment `data_sets` has their errors. `python -m experiments.benchmarks.pipelines letter randfeat 4000 2048`
fits one of them in this process, and prints the bytes of its peak memory beyond the inputs.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.probe import peak, reset_peak
from experiments.benchmarks.timing import NotHere, Times, interleaved, medians, ratio
from experiments.data_sets.models import model_of
from experiments.data_sets.settings import EXACT, NYSTROEM, OURS, SAMPLER
from experiments.datasets import DATASETS, load_dataset
from experiments.results import Summary
from experiments.tables import Record
from randfeat._hints import how_to_install

__all__ = ["CONTENDERS", "extra_memory", "fit_times", "pipeline_tables", "table_of_fits"]

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
CONTENDERS = (OURS, SAMPLER, NYSTROEM, EXACT)
ROWS = {"diabetes": (309,), "digits": (1000,), "letter": (1000, 4000)}  # for training
QUICK_ROWS = {"diabetes": (309,)}
WIDTHS, QUICK_WIDTHS = (512, 2048), (64,)
ROUNDS, QUICK_ROUNDS = 3, 1
WARM_ROWS = 150  # of a first fit, which loads libraries


def pipeline_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """The table of times and memory of fits, and notes."""
    try:
        import sklearn
    except ImportError as missing:
        raise NotHere(f"the benchmark pipelines needs scikit-learn: {how_to_install('sklearn')}.") from missing
    records: list[Record] = []
    for name, sizes in (QUICK_ROWS if quick else ROWS).items():
        for rows in sizes:
            for width in QUICK_WIDTHS if quick else WIDTHS:
                report(f"pipelines: {name}, {rows} rows, {width} features")
                times = fit_times(name, rows, width, QUICK_ROUNDS if quick else ROUNDS)
                records += [
                    {"data": name, "rows": rows, "width": width, "contender": contender, "times": times,
                     "extra": probe(name, contender, rows, width)}
                    for contender in CONTENDERS
                ]  # fmt: skip
    notes = [
        f"scikit-learn {sklearn.__version__}; every model also chooses its penalty, but for SVC, the exact kernel on "
        "digits and letter; memory is the peak of a fit in a new process, beyond what was there before it",
    ]
    return [table_of_fits(records)], notes


def training_rows(name: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    data = load_dataset(name)
    (train,) = data.split(np.random.default_rng(0), rows)
    return data.inputs[train], data.target[train]


def fit_times(name: str, rows: int, width: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of fits to the same rows, by contender, timed in turns."""
    inputs, target = training_rows(name, rows)
    models = {contender: model_of(contender, load_dataset(name), width, 0, rows) for contender in CONTENDERS}
    return interleaved({contender: partial(model.fit, inputs, target) for contender, model in models.items()}, rounds)


def extra_memory(name: str, contender: str, rows: int, width: int) -> int | None:
    """Bytes of peak memory during a fit, beyond the memory before it; None where the system does not report it."""
    inputs, target = training_rows(name, rows)
    data = load_dataset(name)
    first = slice(0, WARM_ROWS)
    model_of(contender, data, min(width, 64), 0, WARM_ROWS).fit(inputs[first], target[first])
    model = model_of(contender, data, width, 0, rows)
    before = reset_peak()
    model.fit(inputs, target)
    after = peak()
    return None if before is None or after is None else after - before


def probe(*arguments: Any) -> int | None:
    """`extra_memory` in a new process."""
    command = [sys.executable, "-m", "experiments.benchmarks.pipelines", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} could not be measured:\n{done.stderr}")
    return json.loads(done.stdout)


def table_of_fits(records: Sequence[Record]) -> Summary:
    """One row for each table, number of rows, number of features, and contender."""
    rows: list[tuple[str, ...]] = []
    sections = []
    for before, record in zip([None, *records], records, strict=False):
        if before is not None and before["contender"] == CONTENDERS[-1]:
            sections.append(len(rows))
        times: Times = record["times"]
        about = record["data"], str(record["rows"]), str(record["width"]), record["contender"]
        memory = "-" if record["extra"] is None else f"{record['extra'] / MIB:.0f}"
        rows.append((*about, f"{medians(times)[record['contender']]:.3f}", over_ours(times, record), memory))
    header = ("data", "rows", "features", "contender", "fit [s]", f"over {OURS}", "beyond inputs [MiB]")
    return Summary("Fits in turns: median time, and peak memory", header, tuple(rows), sections=tuple(sections))


def over_ours(times: Mapping[str, Sequence[float]], record: Record) -> str:
    return "-" if record["contender"] == OURS else f"{ratio(times, record['contender'], OURS).value:.2f}"


def main() -> None:
    """Measure the memory of one fit in this process."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.pipelines", description=main.__doc__)
    parser.add_argument("data", choices=DATASETS)
    parser.add_argument("contender", choices=CONTENDERS)
    for number in ("rows", "features"):
        parser.add_argument(number, type=int)
    options = parser.parse_args()
    print(json.dumps(extra_memory(options.data, options.contender, options.rows, options.features)))


if __name__ == "__main__":
    main()
