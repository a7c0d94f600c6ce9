"""Time of feature maps, of their second moments and of repeated draws, against scikit-learn, NumPy and PyTorch."""

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

import randfeat as rf
from experiments.benchmarks.timing import interleaved, medians
from experiments.results import Summary

__all__ = ["feature_tables"]

Call = Callable[[], object]

SIZES = ((16384, 64, 256), (16384, 64, 1024), (8192, 256, 1024), (4096, 1024, 4096))  # (n, d, number of features)
QUICK_SIZES = ((4096, 64, 256),)
GRAMS, QUICK_GRAMS = ((32768, 64, 512), (16384, 64, 2048)), ((4096, 64, 256),)
DRAWS, QUICK_DRAWS = ((1000, 64, 64), (1000, 64, 256)), ((200, 64, 64),)  # (draws, d, number of features)
PAIRS = 64
ROUNDS, QUICK_ROUNDS = 7, 2
OURS = "randfeat"


def feature_tables(*, quick: bool, report: Callable[[str], None]) -> tuple[list[Summary], list[str]]:
    """Tables for each kind of features and dtype, for second moments and for draws, and notes."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    tables = []
    for kind in KINDS:
        for dtype in ("float32", "float64"):
            columns = {}
            for size in QUICK_SIZES if quick else SIZES:
                report(f"{kind}, {dtype}, n, d, m = {size}")
                columns["n={} d={} m={}".format(*size)] = medians(
                    interleaved(Inputs.of(kind, dtype, size).field(), rounds)
                )
            tables.append(table(f"{kind}, {dtype}", columns))
    for title, contenders, sizes in (
        ("Second moments ΦᵀΦ, float32", moments, QUICK_GRAMS if quick else GRAMS),
        (f"Errors of independent draws at {PAIRS} pairs, float64", draws, QUICK_DRAWS if quick else DRAWS),
    ):
        columns = {}
        for size in sizes:
            report(f"{title}: {size}")
            columns["n={} d={} m={}".format(*size)] = medians(interleaved(contenders(*size), rounds))
        tables.append(table(title, columns))
    missing = [name for name in ("sklearn", "torch") if not importlib.util.find_spec(name)]
    return tables, [f"{name} is not installed and left out" for name in missing]


KINDS: Mapping[str, rf.Estimator] = {
    "cos(wx + b)": rf.TrigonometricFeatures(rf.GaussianKernel(), variant="phase"),
    "[cos(wx), sin(wx)]": rf.TrigonometricFeatures(rf.GaussianKernel()),
    "exp(wx - x²/2)": rf.PositiveFeatures(),
}


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs and the feature map that all contenders of one column share."""

    kind: str
    phi: rf.FeatureMap
    x: np.ndarray

    @classmethod
    def of(cls, kind: str, dtype: str, size: tuple[int, int, int]) -> "Inputs":
        """Normal inputs with norms of about 1, and a drawn map."""
        length, dim, width = size
        x = (np.random.default_rng(0).standard_normal((length, dim)) / math.sqrt(dim)).astype(dtype)
        return cls(kind, KINDS[kind].draw(dim, width, rng=0, like=x), x)

    def field(self) -> dict[str, Call]:
        """Calls of all contenders, ours first."""
        contenders: dict[str, Call] = {
            OURS: lambda: self.phi(self.x),
            f"{OURS}, one thread": lambda: self.phi(self.x, num_threads=1),
            "NumPy, as one writes it": self.in_numpy,
        }
        if importlib.util.find_spec("torch"):
            contenders["PyTorch, as one writes it"] = self.in_torch()
        if self.kind == "cos(wx + b)" and importlib.util.find_spec("sklearn"):
            from sklearn.kernel_approximation import RBFSampler

            sampler = RBFSampler(gamma=0.5, n_components=self.phi.num_features, random_state=0).fit(self.x)
            contenders["RBFSampler.transform"] = lambda: sampler.transform(self.x)
        return contenders

    def in_numpy(self) -> np.ndarray:
        """The features by the textbook formula in NumPy."""
        w, x = self.phi.arrays["rows"], self.x
        if self.kind == "cos(wx + b)":
            return math.sqrt(2 / len(w)) * np.cos(x @ w.T + self.phi.arrays["phases"])
        if self.kind == "[cos(wx), sin(wx)]":
            angles = x @ w.T
            return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1) / math.sqrt(len(w))
        return np.exp(x @ w.T - np.sum(x * x, axis=-1, keepdims=True) / 2) / math.sqrt(len(w))

    def in_torch(self) -> Call:
        """The features by the textbook formula in PyTorch."""
        import torch

        x, w = torch.from_numpy(self.x), torch.from_numpy(self.phi.arrays["rows"])
        phases = torch.from_numpy(self.phi.arrays["phases"]) if "phases" in self.phi.arrays else None

        def call() -> object:
            with torch.inference_mode():
                if phases is not None:
                    return math.sqrt(2 / len(w)) * torch.cos(x @ w.T + phases)
                if self.kind == "[cos(wx), sin(wx)]":
                    angles = x @ w.T
                    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1) / math.sqrt(len(w))
                return torch.exp(x @ w.T - (x * x).sum(-1, keepdim=True) / 2) / math.sqrt(len(w))

        return call


def moments(length: int, dim: int, width: int) -> dict[str, Call]:
    """Contenders for second moments: all features at once and their product, against our blocks."""
    inputs = Inputs.of("[cos(wx), sin(wx)]", "float32", (length, dim, width))

    def at_once() -> np.ndarray:
        features = inputs.phi(inputs.x)
        return features.T @ features

    def in_numpy() -> np.ndarray:
        features = inputs.in_numpy()
        return features.T @ features

    return {
        OURS: lambda: rf.FeatureMoments.of(inputs.phi, inputs.x),
        f"{OURS}, float64 sums": lambda: rf.FeatureMoments.of(inputs.phi, inputs.x, dtype="float64"),
        "all of our features, then z.T @ z": at_once,
        "NumPy, as one writes it, then z.T @ z": in_numpy,
    }


def draws(num_draws: int, dim: int, width: int) -> dict[str, Call]:
    """Contenders for Monte Carlo over draws: a batch of draws against a loop."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, PAIRS, dim)) / math.sqrt(2 * dim)
    contenders: dict[str, Call] = {}
    for coupling in ("independent", "orthogonal"):
        estimator = rf.PositiveFeatures(coupling=coupling)

        def ours(estimator: rf.Estimator = estimator) -> object:
            return rf.montecarlo.sample_errors(estimator, x, y, num_features=width, num_draws=num_draws, rng=0)

        def loop(estimator: rf.Estimator = estimator) -> object:
            maps = (estimator.draw(dim, width, rng=child) for child in np.random.default_rng(0).spawn(num_draws))
            return np.stack([np.sum(phi(x) * phi(y), axis=-1) for phi in maps])

        name = OURS if not contenders else f"{OURS}, {coupling} rows"
        contenders |= {name: ours, f"loop over draws, {coupling} rows": loop}
    return contenders


def table(title: str, columns: Mapping[str, Mapping[str, float]]) -> Summary:
    """Time of each contender relative to ours, and our time in milliseconds."""
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows: list[tuple[str, ...]] = [(f"{OURS} [ms]", *(f"{1e3 * column[OURS]:.1f}" for column in columns.values()))]
    for name in names:
        ratios = (f"{column[name] / column[OURS]:.2f}" if name in column else "-" for column in columns.values())
        rows.append((name, *ratios))
    return Summary(f"{title}: time over that of randfeat", ("contender", *columns), tuple(rows))
