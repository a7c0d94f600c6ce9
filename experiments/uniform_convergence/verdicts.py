"""What the numbers of uniform_convergence say: on what the rows needed depend, and that no bound is exceeded."""

import numpy as np

import randfeat as rf
from experiments.experiment import Summary, Tables, Verdict
from experiments.uniform_convergence.measure import BOUNDS, UniformSettings


def slope(x: list[float], y: list[float]) -> float:
    """Of a straight line through the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def slope_tolerance(spread: float, settings: UniformSettings, widths: tuple[int, ...], count: int) -> float:
    """Four standard errors of the mean of `count` slopes between medians over draws that vary by this share."""
    error = np.sqrt(np.pi / 2) * spread / np.sqrt(settings.num_draws)
    return float(4 * np.sqrt(2) * error / np.log(max(widths) / min(widths)) / np.sqrt(count))


def verdicts(tables: Tables, settings: UniformSettings) -> list[Verdict]:
    tokens = tables["tokens"]
    by_size = {(r["tokens"], r["dim"], r["rows"]): r["median"] for r in tokens}
    most = 1 + 4 * 0.1 * np.sqrt(np.pi / 2 / settings.num_draws)  # largest errors vary by a tenth from draw to draw
    normal = [row["median"] / row["normal"] for row in tokens]
    shares = {(r["tokens"], r["dim"], r["rows"]): r["median"] / r["ceiling"] for r in tokens}
    last, low_dim, high_dim = max(settings.tokens), min(settings.token_dims), max(settings.token_dims)
    near, far = (min(shares[last, d, m] for m in settings.token_rows) for d in (low_dim, high_dim))
    in_rows = [
        slope(list(settings.token_rows), [by_size[n, d, m] for m in settings.token_rows])
        for n in settings.tokens
        for d in settings.token_dims
    ]
    ball = tables["ball"]
    large = [row for row in ball if row["dim"] >= 16]
    in_dim = slope([row["dim"] for row in large], [row["median"] ** 2 for row in large])
    sup = tables["sup"]
    over = [(row[name] / row["median"], name) for row in sup for name in BOUNDS if np.isfinite(row[name])]
    middle = settings.sup_rows[len(settings.sup_rows) // 2]
    centre = settings.diameters[len(settings.diameters) // 2]
    widths = [row["median"] for row in sup if row["rows"] == middle]
    in_sup_rows = slope(
        *map(list, zip(*((r["rows"], r["median"]) for r in sup if r["diameter"] == centre), strict=True))
    )
    allowed = slope_tolerance(0.08, settings, settings.token_rows, len(in_rows)) + 0.02
    allowed_discs = slope_tolerance(0.15, settings, settings.sup_rows, 1) + 0.02
    spectral = tables["spectral"]
    covered = [row for row in spectral if row["bound"] <= 0.5]
    exceeded = sum(row["error"] > row["bound"] for row in covered)
    return [
        Verdict(
            claim="the largest error of a matrix is at most that of independent normal errors of the same variances",
            expected=f"median / predicted median at most {most:.2f} (the bound of Šidák, and 4 standard errors)",
            measured=f"{min(normal):.2f} to {max(normal):.2f} over {len(normal)} sizes",
            holds=bool(max(normal) <= most),
        ),
        Verdict(
            claim=f"rows needed do not depend on the number of tokens: d = {low_dim}, {last} of them reach the limit",
            expected="largest error at least 0.95 of that over the whole ball, which no number of tokens exceeds",
            measured=f"{near:.3f} of it; at d = {high_dim} still {far:.3f}",
            holds=0.95 <= near <= max(shares.values()) <= 1 + 1e-12,
        ),
        Verdict(
            claim="rows needed are proportional to ε^-2: the largest error falls like m^-1/2",
            expected=f"mean slope over all sizes within {allowed:.2f} of -0.5, discs within {allowed_discs:.2f}",
            measured=f"{np.mean(in_rows):.3f}, {in_sup_rows:.3f}",
            holds=bool(abs(np.mean(in_rows) + 0.5) < allowed and abs(in_sup_rows + 0.5) < allowed_discs),
        ),
        Verdict(
            claim="the largest error of every matrix is below Hoeffding's bound over its entries",
            expected="median below the error that half of all draws must meet",
            measured=f"bound / median from {min(r['hoeffding'] / r['median'] for r in tokens):.2f} to "
            f"{max(r['hoeffding'] / r['median'] for r in tokens):.2f}",
            holds=all(row["median"] <= row["hoeffding"] for row in tokens),
        ),
        Verdict(
            claim="over a whole ball the rows needed grow in proportion to the dimension",
            expected="slope of the squared largest error in d within 0.2 of 1 for d >= 16, the limit of large d",
            measured=f"{in_dim:.2f} up to d = {ball[-1]['dim']}",
            holds=abs(in_dim - 1) < 0.2,
        ),
        Verdict(
            claim="largest errors over discs are below all three bounds, which are loose",
            expected="median below the error that each bound allows half of all draws",
            measured=f"bound / median from {min(over)[0]:.1f} ({min(over)[1]}) to {max(over)[0]:.1f} ({max(over)[1]})",
            holds=bool(over) and min(over)[0] > 1,
        ),
        Verdict(
            claim="the largest error grows slowly with the diameter",
            expected=f"less than twofold from {settings.diameters[1]:g} to {settings.diameters[-1]:g}",
            measured=", ".join(f"{width:.4f}" for width in widths),
            holds=widths[-1] < 2 * widths[1],
        ),
        Verdict(
            claim="the spectral error is below its bound but for a share of draws",
            expected=f"at most {settings.failure:g} of draws where the bound is at most 1/2",
            measured=f"{exceeded} of {len(covered)} draws; bound / error from "
            f"{min((r['bound'] / r['error'] for r in covered), default=np.nan):.1f}",
            holds=bool(covered) and exceeded <= settings.failure * len(covered),
        ),
        Verdict(
            claim="predictions of ridge regression differ by at most what the spectral error allows",
            expected="|f̂ - f| <= √λ Δ/(1-Δ) |(K+λI)^{-1/2} y| in every draw with Δ < 1",
            measured=f"largest share {max(row['prediction'] / row['promised'] for row in spectral):.2f}",
            holds=all(row["prediction"] <= row["promised"] for row in spectral),
        ),
    ]


def summaries(tables: Tables, settings: UniformSettings) -> list[Summary]:
    rows = []
    most = max(settings.token_rows)
    for n in settings.tokens:
        found = {r["dim"]: r["median"] for r in tables["tokens"] if (r["tokens"], r["rows"]) == (n, most)}
        needed = [(found[d] / 0.1) ** 2 * most for d in settings.token_dims]
        entries = float(rf.bounds.finite_num_rows(0.1 / np.e, n**2, failure=0.5))
        rows.append((str(n), *(f"{value:.0f}" for value in needed), f"{entries:.0f}"))
    uniform = [f"{float(rf.bounds.attention_num_rows(0.1, d, d**0.25, failure=0.5)):.1e}" for d in settings.token_dims]
    rows.append(("any (bound)", *uniform, ""))
    header = ("tokens", *(f"d = {d}" for d in settings.token_dims), "union bound")
    return [
        Summary("rows needed for max |Â - A| <= 0.1 in half of all draws, |q| = |k| = d^{1/4}", header, tuple(rows))
    ]
