"""What is measured: largest errors over tokens, balls and discs, and spectral errors in ridge regression."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import randfeat as rf
from experiments.experiment import Cell, Record, Settings, Tables
from experiments.pairs import pairs_at

BOUNDS: dict[str, Callable[..., np.ndarray]] = {
    "Rahimi & Recht": rf.bounds.rahimi_recht_bound,
    "Sutherland & Schneider": rf.bounds.sutherland_schneider_bound,
    "library": rf.bounds.sup_error_bound,
}


@dataclass(frozen=True)
class UniformSettings(Settings):
    """Sizes: tokens, dimensions and rows of the matrices, draws; diameters and rows of the balls; the ridge problem."""

    tokens: tuple[int, ...] = (32, 128, 512, 2048)
    token_dims: tuple[int, ...] = (4, 64)
    token_rows: tuple[int, ...] = (64, 256, 1024)
    ball_dims: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    ball_rows: int = 2048
    diameters: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    sup_rows: tuple[int, ...] = (256, 1024, 4096)
    num_draws: int = 15
    num_points: int = 200
    ridge: float = 4.0
    spectral_rows: tuple[int, ...] = (64, 256, 1024, 4096)
    failure: float = 0.1


def spread(values: list[float]) -> Record:
    """Median and extremes."""
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


@dataclass(frozen=True)
class TokenCell(Cell):
    """Largest error over an attention matrix."""

    num_tokens: int
    dim: int
    num_rows: int

    def measure(self, settings: UniformSettings) -> Tables:
        rng, errors, ceilings = settings.rng(f"tokens/{self.num_tokens}/{self.dim}/{self.num_rows}"), [], []
        estimator, counts = rf.TrigonometricFeatures(coupling="independent"), np.zeros(400)
        draws = max(settings.num_draws // (1 + self.num_tokens // 1024), 5)
        for child in rng.spawn(draws):
            x, y = child.standard_normal((2, self.num_tokens, self.dim))
            x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
            phi = estimator.draw(self.dim, 2 * self.num_rows, rng=child)
            exact = estimator.kernel(x, y)
            deviations = np.abs(phi.estimate(x, y) - exact)
            i, j = np.unravel_index(np.argmax(deviations), deviations.shape)
            errors.append(float(deviations[i, j]))
            starts = np.concatenate([[x[i] - y[j]], starting_points(phi.arrays["rows"], child)])
            ceilings.append(np.e * largest_error(phi.arrays["rows"], 2.0, starts))
            counts += np.histogram(2 - 2 * np.log(exact), bins=counts.size, range=(0.0, 4.0))[0] / draws
        hoeffding = np.e * np.sqrt(2 * np.log(2 * self.num_tokens**2 / 0.5) / self.num_rows)
        row: Record = {"tokens": self.num_tokens, "dim": self.dim, "rows": self.num_rows}
        row |= spread(errors) | {"ceiling": float(np.median(ceilings))}
        row |= {"hoeffding": float(hoeffding), "normal": normal_median(estimator, counts, self.num_rows)}
        return {"tokens": [row]}


def normal_median(estimator: rf.Estimator, counts: np.ndarray, num_rows: int) -> float:
    """The median of the largest of independent normal errors with the variances of the entries; counts by t in [0, 4].

    Correlated normal errors of the same variances have a smaller one (Šidák 1967).
    """
    from scipy.special import log_ndtr

    t = (np.arange(counts.size) + 0.5) * 4 / counts.size
    deviation = np.sqrt(estimator.mse(*pairs_at(4 - t, t, 2), num_features=2 * num_rows))
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        inside = np.sum(counts * np.log(-np.expm1(np.log(2) + log_ndtr(-middle / deviation))))
        low, high = (low, middle) if inside >= -np.log(2) else (middle, high)
    return high


def starting_points(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Differences along the directions in which the rows are longest and shortest, and random ones."""
    _, axes = np.linalg.eigh(rows.T @ rows)
    extreme = axes[:, [0, -1]].T
    return np.concatenate([*(r * extreme for r in (0.7, 1.4, 2.0)), rng.standard_normal((12, rows.shape[1]))])


def largest_error(rows: np.ndarray, radius: float, starts: np.ndarray, steps: int = 60) -> float:
    """The largest |k̂ - k| over |δ| <= radius, by projected gradient ascent from each start: a lower bound of it."""

    def inside(delta: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(delta, axis=1, keepdims=True)
        return delta * np.minimum(radius / np.maximum(length, radius), 1.0)

    def error(delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        angle = delta @ rows.T
        kernel = np.exp(-np.sum(delta**2, axis=1) / 2)
        slope = delta * kernel[:, None] - np.sin(angle) @ rows / len(rows)
        return np.mean(np.cos(angle), axis=1) - kernel, slope

    delta = inside(starts)
    best = 0.0
    for step in 0.3 * 0.92 ** np.arange(steps):
        value, slope = error(delta)
        best = max(best, float(np.max(np.abs(value))))
        length = np.linalg.norm(slope, axis=1, keepdims=True)
        delta = inside(
            delta + step * np.sign(value)[:, None] * np.divide(slope, length, where=length > 0, out=0 * slope)
        )
    return max(best, float(np.max(np.abs(error(delta)[0]))))


@dataclass(frozen=True)
class BallCell(Cell):
    """Largest error over the pairs of points of a unit ball."""

    dim: int

    def measure(self, settings: UniformSettings) -> Tables:
        errors = []
        for child in settings.rng(f"ball/{self.dim}").spawn(settings.num_draws):
            rows = rf.Independent().sample(settings.ball_rows, self.dim, rng=child)
            errors.append(largest_error(rows, 2.0, starting_points(rows, child)))
        return {"ball": [{"dim": self.dim, "rows": settings.ball_rows} | spread(errors)]}


@dataclass(frozen=True)
class SupCell(Cell):
    """Largest error over a disc of given diameter in the plane."""

    diameter: float
    num_rows: int

    def measure(self, settings: UniformSettings) -> Tables:
        """One row of `sup`: a grid over the differences (a half plane is enough), then ascent from its best points."""
        axis = np.linspace(-self.diameter, self.diameter, int(np.clip(8 * self.diameter, 24, 96)) + 1)
        grid = np.stack(np.meshgrid(axis, axis[axis >= 0]), axis=-1).reshape(-1, 2)
        grid = grid[np.linalg.norm(grid, axis=1) <= self.diameter]
        kernel, errors = np.exp(-np.sum(grid**2, axis=1) / 2), []
        for child in settings.rng(f"sup/{self.diameter:g}/{self.num_rows}").spawn(settings.num_draws):
            rows = rf.Independent().sample(self.num_rows, 2, rng=child)
            values = np.concatenate([np.mean(np.cos(part @ rows.T), axis=1) for part in np.array_split(grid, 16)])
            best = np.argsort(-np.abs(values - kernel))[:8]
            errors.append(largest_error(rows, self.diameter, grid[best], steps=25))
        row: Record = {"diameter": self.diameter, "rows": self.num_rows} | spread(errors)
        return {
            "sup": [
                row | {name: claimed_error(bound, self.diameter, 2, self.num_rows) for name, bound in BOUNDS.items()}
            ]
        }


def claimed_error(bound: Callable[..., np.ndarray], diameter: float, dim: int, num_rows: int) -> float:
    """The error that the bound says is exceeded in at most half of all draws."""
    low, high = 1e-4, float(np.sqrt(dim)) * diameter
    if bound(high, diameter, dim, num_rows) > 0.5:
        return float(np.inf)
    while high / low > 1 + 1e-9:
        middle = np.sqrt(low * high)
        low, high = (low, middle) if bound(middle, diameter, dim, num_rows) <= 0.5 else (middle, high)
    return float(high)


@dataclass(frozen=True)
class SpectralCell(Cell):
    """Spectral error and predictions of kernel ridge regression."""

    num_rows: int

    def measure(self, settings: UniformSettings) -> Tables:
        """Rows of `spectral`, one for each draw; `promised` follows from the spectral error alone."""
        data = settings.rng("ridge regression")
        x = data.standard_normal((settings.num_points, 2))
        target = np.sin(2 * x[:, 0]) * np.cos(x[:, 1]) + 0.3 * data.standard_normal(settings.num_points)
        estimator = rf.TrigonometricFeatures(rf.GaussianKernel(), coupling="independent")
        gram, ridge = estimator.kernel(x, x), settings.ridge
        size = rf.bounds.effective_dimension(gram, ridge)
        # The number of rows is proportional to 1/Δ², so that one value gives the Δ of any number of rows.
        half = float(rf.bounds.spectral_num_rows(0.5, settings.num_points, ridge, size, failure=settings.failure))
        base = gram + ridge * np.eye(len(gram))
        weight, exact = np.linalg.solve(base, target), gram @ np.linalg.solve(base, target)
        result: list[Record] = []
        for draw, child in enumerate(settings.rng(f"spectral/{self.num_rows}").spawn(settings.num_draws)):
            estimate = estimator.draw(2, 2 * self.num_rows, rng=child).estimate(x, x)
            error = rf.bounds.spectral_error(gram, estimate, ridge)
            prediction = estimate @ np.linalg.solve(estimate + ridge * np.eye(len(gram)), target)
            promised = np.sqrt(ridge) * error / (1 - error) * np.sqrt(target @ weight) if error < 1 else np.inf
            row: Record = {
                "rows": self.num_rows,
                "draw": draw,
                "error": error,
                "bound": 0.5 * np.sqrt(half / self.num_rows),
            }
            scale = np.linalg.norm(exact)
            row |= {
                "prediction": float(np.linalg.norm(prediction - exact) / scale),
                "promised": float(promised / scale),
            }
            result.append(row | {"frobenius": float(np.linalg.norm(estimate - gram) / np.linalg.norm(gram))})
        return {"spectral": result}


def cells(settings: UniformSettings) -> list[Cell]:
    middle = settings.sup_rows[len(settings.sup_rows) // 2]
    centre = settings.diameters[len(settings.diameters) // 2]
    return [
        *(TokenCell(n, d, m) for n in settings.tokens for d in settings.token_dims for m in settings.token_rows),
        *(BallCell(dim) for dim in settings.ball_dims),
        *(SupCell(diameter, middle) for diameter in settings.diameters),
        *(SupCell(centre, rows) for rows in settings.sup_rows if rows != middle),
        *(SpectralCell(rows) for rows in settings.spectral_rows),
    ]
