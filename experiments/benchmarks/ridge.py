"""Kernel ridge regression on random features: against scikit-learn on two tables, and on a stream of rows.

`python -m experiments.benchmarks.ridge stream 10000000 2048` runs only the stream, of any length, in blocks of 100 000.
`python -m experiments.benchmarks.ridge penalties ames 2400 512 10` compares the errors of ways to choose the penalty.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.probe import peak, reset_peak
from experiments.benchmarks.timing import NotHere, Times, interleaved, medians, ratio
from experiments.datasets import load_dataset
from experiments.results import Summary
from experiments.tables import Record
from randfeat._hints import how_to_install

__all__ = ["CONTENDERS", "block_of_rows", "fit_record", "fit_times", "model_of", "ridge_tables", "stream_records"]

MIB = 1 << 20
ROOT = Path(__file__).parents[2]
DIM, BLOCK, QUICK_BLOCK = 16, 100_000, 10_000  # of the stream
STREAM_WIDTH, QUICK_STREAM_WIDTH = 2048, 256
STREAM_BLOCKS = 4
STREAM_MEMORY = 2048.0  # MiB of the whole process
STEADY = 1.25  # last block over the first one that is warm
WIDTHS, QUICK_WIDTHS = (512, 2048), (64,)
TRAIN, QUICK_TRAIN = {"letter": 15000, "ames": 2400}, {"letter": 1000, "ames": 1000}
TEST = {"letter": 5000, "ames": 500}
KERNEL_ROWS = 5000  # of exact kernel ridge regression, which is cubic in them
SPLITS, QUICK_SPLITS = 5, 1
ROUNDS, QUICK_ROUNDS = 5, 1
FASTER = 0.6  # of the time of the sampler's pipeline

OURS, OURS_ONE = "randfeat", "randfeat, alpha=1"  # the penalty of scikit-learn's ridge, without a search
SAMPLER, SCALED = "RBFSampler, ridge", "RBFSampler(gamma='scale'), ridge"
KERNEL_RIDGE, SVC = "KernelRidge, exact", "SVC, exact"
SAMPLED, EXACT = (OURS, OURS_ONE, SAMPLER, SCALED), (KERNEL_RIDGE, SVC)
CONTENDERS = {"letter": SAMPLED + EXACT, "ames": SAMPLED + EXACT}
PENALTIES = np.geomspace(1e-4, 1e2, 37)
GCV, LEFT_OUT, HINDSIGHT, ONE = "GCV", "leaving one row out", "hindsight", "1"


def ridge_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """Tables of errors, times and memory of all contenders, of the stream and of the goals, and notes."""
    try:
        import sklearn
    except ImportError as error:
        raise NotHere(f"the benchmark ridge needs scikit-learn: {how_to_install('sklearn')}.") from error
    records, times = [], {}
    widths, rounds = (QUICK_WIDTHS, QUICK_ROUNDS) if quick else (WIDTHS, ROUNDS)
    for name in CONTENDERS:
        rows = (QUICK_TRAIN if quick else TRAIN)[name]
        for width in widths:
            report(f"ridge: {name}, {width} features, {rounds} rounds over all fits")
            times[name, width] = probe("times", name, str(rows), str(width), str(rounds))
        for contender in CONTENDERS[name]:
            for width in (0,) if contender in EXACT else widths:
                report(f"ridge: {name}, {contender}{(width and f', {width} features') or ''}")
                splits = QUICK_SPLITS if quick else SPLITS
                records.append(probe("fit", name, contender, str(rows), str(width), str(splits)))
    rows, width = (QUICK_BLOCK, QUICK_STREAM_WIDTH) if quick else (BLOCK, STREAM_WIDTH)
    report(f"ridge: a stream of {STREAM_BLOCKS} blocks of {rows} rows, {width} features")
    stream = probe("stream", str(STREAM_BLOCKS * rows), str(width), "--block", str(rows))
    notes = [f"scikit-learn {sklearn.__version__}; defaults of every estimator but for what is named"]
    tables = [fit_table(records), time_table(times), stream_table(stream)]
    return [*tables, goal_table("Ridge", goals(records, times, stream))], notes


def probe(*arguments: str) -> Any:
    """Run one measurement in a new process."""
    command = [sys.executable, "-m", "experiments.benchmarks.ridge", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} could not be measured:\n{done.stderr}")
    return json.loads(done.stdout)


def model_of(contender: str, name: str, width: int, seed: int) -> Any:
    """The unfitted model of a contender."""
    from sklearn.kernel_approximation import RBFSampler
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import Ridge, RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC as Classifier
    from sklearn.svm import SVR as Regressor

    from randfeat.integrations.sklearn import RandomFeatureRidge, RandomFeatureRidgeClassifier

    classes = name == "letter"
    if contender in (OURS, OURS_ONE):
        ours = RandomFeatureRidgeClassifier if classes else RandomFeatureRidge
        return ours(n_components=width, alpha="gcv" if contender == OURS else 1.0, random_state=seed)
    if contender == SVC:
        return Classifier() if classes else Regressor()
    if contender == KERNEL_RIDGE:
        return KernelRidge(kernel="rbf", gamma=1 / load_dataset(name).dim)  # "scale", as columns have variance 1
    gamma: Any = "scale" if contender == SCALED else 1.0
    sampler = RBFSampler(gamma=gamma, n_components=width, random_state=seed)
    return make_pipeline(sampler, RidgeClassifier() if classes else Ridge())


def fit_record(name: str, contender: str, rows: int, width: int, splits: int) -> Record:
    """Errors on held-out rows over random splits and draws, seconds of a fit, and memory beyond the inputs."""
    data = load_dataset(name)
    rows = min(rows, KERNEL_ROWS) if contender == KERNEL_RIDGE else rows
    errors, seconds, extra = [], [], None
    for seed in range(splits):
        train, test = data.split(np.random.default_rng(seed), rows, TEST[name])
        inputs, target = data.inputs[train], data.target[train]
        center: Any = 0.0
        if contender == KERNEL_RIDGE:  # has no classes, and no intercept
            target = np.where(target[:, None] == np.arange(26), 1.0, -1.0) if name == "letter" else target
            center = target.mean(axis=0)
            target = target - center
        if seed == 0:
            few = slice(0, None, max(1, len(inputs) // 200))
            model_of(contender, name, min(width, 16), seed).fit(inputs[few], target[few])  # loads what it needs
        before = reset_peak() if seed == 0 else None
        started = time.perf_counter()
        model = model_of(contender, name, width, seed).fit(inputs, target)
        seconds.append(time.perf_counter() - started)
        after = peak()
        if before is not None and after is not None:
            extra = after - before
        errors.append(error(model.predict(data.inputs[test]) + center, data.target[test], classes=name == "letter"))
    return {"data": name, "contender": contender, "rows": rows, "width": width, "errors": errors,
            "seconds": statistics.median(seconds), "extra": extra}  # fmt: skip


def fit_times(name: str, rows: int, width: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of fits to the same rows, by contender, timed in turns."""
    data = load_dataset(name)
    train, _ = data.split(np.random.default_rng(0), rows, TEST[name])
    inputs, target = data.inputs[train], data.target[train]
    fits = {contender: partial(model_of(contender, name, width, 0).fit, inputs, target) for contender in SAMPLED}
    return interleaved(fits, rounds)


def penalty_choices(z: np.ndarray, y: np.ndarray) -> dict[str, int]:
    """Indices in `PENALTIES` chosen for ridge regression of y (n, k) on z (n, m), by GCV and by leave-one-out.

    Let the leverages `h_j` be the diagonal of the hat matrix. A row that is left out has the residual `r_j/(1 - h_j)`.
    GCV replaces all `h_j` by their mean.
    """
    center_z, center_y = z - z.mean(axis=0), y - y.mean(axis=0)
    values, vectors = np.linalg.eigh(center_z.T @ center_z)
    values, rows = np.maximum(values, 0.0), center_z @ vectors
    coordinates = rows.T @ center_y
    scores: dict[str, list[float]] = {GCV: [], LEFT_OUT: []}
    for alpha in PENALTIES:
        leverages = 1 / len(z) + rows**2 @ (1 / (values + alpha))
        squares = np.sum((center_y - rows @ (coordinates / (values + alpha)[:, None])) ** 2, axis=1)
        scores[LEFT_OUT].append(float(np.mean(squares / (1 - leverages) ** 2)))
        scores[GCV].append(float(np.mean(squares) / (1 - np.mean(leverages)) ** 2))
    return {choice: int(np.argmin(values)) for choice, values in scores.items()}


def penalty_records(name: str, rows: int, width: int, splits: int) -> list[Record]:
    """Errors on held-out rows over random splits and draws, with penalties that are chosen in different ways."""
    from randfeat.integrations.sklearn import RandomFeatures

    data = load_dataset(name)
    classes = np.unique(data.target) if name == "letter" else None
    errors = np.empty((splits, len(PENALTIES)))
    chosen: dict[str, list[int]] = {GCV: [], LEFT_OUT: [], HINDSIGHT: [], ONE: []}
    for seed in range(splits):
        train, test = data.split(np.random.default_rng(seed), rows, TEST[name])
        features = RandomFeatures(n_components=width, random_state=seed).fit(data.inputs[train])
        z, held = (features.transform(data.inputs[part]) for part in (train, test))
        y = data.target[train][:, None]
        y = y.astype(np.float64) if classes is None else np.where(y == classes, 1.0, -1.0)
        center = z.mean(axis=0)
        gram, cross = (z - center).T @ (z - center), (z - center).T @ y
        for number, alpha in enumerate(PENALTIES):
            weights = np.linalg.solve(gram + alpha * np.eye(width), cross)
            predicted = (held - center) @ weights + y.mean(axis=0)
            predicted = predicted[:, 0] if classes is None else predicted
            errors[seed, number] = error(predicted, data.target[test], classes=classes is not None)
        choices = {**penalty_choices(z, y), HINDSIGHT: int(np.argmin(errors[seed])),
                   ONE: int(np.argmin(np.abs(np.log(PENALTIES))))}  # fmt: skip
        for choice, number in choices.items():
            chosen[choice].append(number)
    found = []
    for choice, numbers in chosen.items():
        mine, gcv = (errors[np.arange(splits), n] for n in (numbers, chosen[GCV]))
        spread = float(np.std(mine - gcv, ddof=1) / math.sqrt(splits)) if splits > 1 else math.nan
        found.append({"penalty": choice, "typical": float(np.exp(np.mean(np.log(PENALTIES[numbers])))),
                      "error": float(np.mean(mine)), "over GCV": float(np.mean(mine - gcv)), "±": spread})  # fmt: skip
    return found


def error(predicted: np.ndarray, target: np.ndarray, *, classes: bool) -> float:
    """Share of wrong classes; or root mean squared error over the standard deviation of the target."""
    if not classes:
        return float(np.sqrt(np.mean((predicted - target) ** 2)) / np.std(target))
    labels = np.argmax(predicted, axis=-1) if predicted.ndim == 2 else predicted
    return float(np.mean(labels != target))


def block_of_rows(number: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the stream, float32: a smooth function of 16 columns, plus noise with a tenth of its spread."""
    rng = np.random.default_rng([0, number])
    x = rng.standard_normal((rows, DIM), dtype=np.float32)
    y = np.sin(x[:, 0] + x[:, 1]) + np.cos(x[:, 2] * x[:, 3]) + 0.1 * rng.standard_normal(rows, dtype=np.float32)
    return x, y


def stream_records(rows: int, width: int, block: int) -> Iterator[Record]:
    """Feed blocks of rows to `partial_fit`, then solve for the weights; yields the time and memory of each step."""
    from randfeat.integrations.sklearn import RandomFeatureRidge

    model = RandomFeatureRidge(n_components=width, random_state=0)
    for number in range(math.ceil(rows / block)):
        x, y = block_of_rows(number, min(block, rows - number * block))
        started = time.perf_counter()
        model.partial_fit(x, y)
        yield {"step": f"block {number + 1}", "rows": len(x), "seconds": time.perf_counter() - started, "peak": peak()}
    started = time.perf_counter()
    alpha = model.alpha_
    yield {"step": "weights and penalty", "rows": 0, "seconds": time.perf_counter() - started, "peak": peak()}
    x, y = block_of_rows(10**9, 10_000)
    started = time.perf_counter()
    score = model.score(x, y)
    yield {"step": f"predictions, R² = {score:.3f}, α = {alpha:.2g}", "rows": len(x),
           "seconds": time.perf_counter() - started, "peak": peak()}  # fmt: skip


def fit_table(records: Sequence[Record]) -> Summary:
    """Table with one row for each contender and width."""
    rows: list[tuple[str, ...]] = []
    sections = []
    for before, record in zip([None, *records], records, strict=False):
        if before is not None and before["data"] != record["data"]:
            sections.append(len(rows))
        errors = record["errors"]
        spread = f" ± {np.std(errors, ddof=1) / math.sqrt(len(errors)):.4f}" if len(errors) > 1 else ""
        rows.append((
            record["data"], record["contender"], str(record["width"] or "-"), str(record["rows"]),
            f"{np.mean(errors):.4f}{spread}", f"{record['seconds']:.2f}",
            "-" if record["extra"] is None else f"{record['extra'] / MIB:.0f}",
        ))  # fmt: skip
    title = (
        "Error on held-out rows (letter: share of wrong classes; ames: RMSE over the spread), time and memory of a fit"
    )
    header = ("data", "contender", "features", "rows", "error", "fit [s]", "beyond inputs [MiB]")
    return Summary(title, header, tuple(rows), sections=tuple(sections))


def time_table(times: Mapping[tuple[str, int], Times]) -> Summary:
    """Median times of fits that took turns, and relative to the pipeline with the sampler of scikit-learn."""
    rows = []
    for (name, width), each in times.items():
        for contender, middle in medians(each).items():
            over = "-" if contender == SAMPLER else f"{ratio(each, contender, SAMPLER).value:.2f}"
            rows.append((name, str(width), contender, f"{middle:.3f}", over))
    header = ("data", "features", "contender", "fit [s]", f"over {SAMPLER}")
    return Summary("Fits in turns: median seconds", header, tuple(rows))


def stream_table(stream: Sequence[Record]) -> Summary:
    """Table with one row for each step of the stream."""
    rows = []
    for record in stream:
        rate = f"{record['rows'] / record['seconds']:.0f}" if record["rows"] else "-"
        memory = "-" if record["peak"] is None else f"{record['peak'] / MIB:.0f}"
        rows.append((record["step"], str(record["rows"]), f"{record['seconds']:.2f}", rate, memory))
    title = f"A stream of rows of {DIM} float32 columns through RandomFeatureRidge.partial_fit"
    return Summary(title, ("step", "rows", "seconds", "rows/s", "process [MiB]"), tuple(rows))


def goals(records: Sequence[Record], times: Mapping[tuple[str, int], Times], stream: Sequence[Record]) -> list[Goal]:
    """Goals: lower error than the sampler at equal width, in less time; constant memory and time for each block."""
    found = []
    errors = {(r["data"], r["contender"], r["width"]): float(np.mean(r["errors"])) for r in records}
    for (name, contender, width), value in errors.items():
        if contender in (SAMPLER, SCALED):
            what = f"{name}, {width} features: error of {contender} over ours"
            found.append(Goal(what, value / errors[name, OURS, width], 1.0))
    for (name, width), each in times.items():
        for contender, bound in ((OURS, FASTER), (OURS_ONE, None)):
            what = f"{name}, {width} features: time of {contender} over {SAMPLER}"
            found.append(Goal(what, ratio(each, contender, SAMPLER), bound, False))
    blocks = [r for r in stream if r["step"].startswith("block")]
    last, warm = blocks[-1], blocks[min(1, len(blocks) - 1)]
    steady = (last["seconds"] / last["rows"]) / (warm["seconds"] / warm["rows"])
    found.append(Goal("stream: time per row of the last block over the second", steady, STEADY, False))
    peaks = [r["peak"] for r in stream if r["peak"] is not None]
    memory = max(peaks) / MIB if len(peaks) == len(stream) else None
    return [*found, Goal("stream: whole process", memory, STREAM_MEMORY, False, unit="MiB", digits=0)]


def main() -> None:
    """Run one of the measurements in this process, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.ridge", description=main.__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    fit = kinds.add_parser("fit")
    fit.add_argument("data", choices=sorted(CONTENDERS))
    fit.add_argument("contender")
    for number in ("rows", "width", "splits"):
        fit.add_argument(number, type=int)
    times = kinds.add_parser("times")
    times.add_argument("data", choices=sorted(CONTENDERS))
    for number in ("rows", "width", "rounds"):
        times.add_argument(number, type=int)
    stream = kinds.add_parser("stream")
    stream.add_argument("rows", type=int)
    stream.add_argument("width", type=int)
    stream.add_argument("--block", type=int, default=BLOCK)
    penalties = kinds.add_parser("penalties")
    penalties.add_argument("data", choices=sorted(CONTENDERS))
    for number in ("rows", "width", "splits"):
        penalties.add_argument(number, type=int)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.kind == "fit":
        arguments = options.data, options.contender, options.rows, options.width, options.splits
        print(json.dumps(fit_record(*arguments)))
    elif options.kind == "times":
        print(json.dumps(fit_times(options.data, options.rows, options.width, options.rounds)))
    elif options.kind == "penalties":
        for record in penalty_records(options.data, options.rows, options.width, options.splits):
            print(json.dumps(record, ensure_ascii=False))
    else:
        print(json.dumps(list(stream_records(options.rows, options.width, options.block))))


if __name__ == "__main__":
    main()
