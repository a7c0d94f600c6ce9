"""What the numbers of kernel_mse say: measurement equals closed form, for each estimator and coupling."""

from collections.abc import Iterator

from experiments.agreement import bonferroni
from experiments.experiment import Record, Summary, Tables, Verdict
from experiments.kernel_mse.measure import KernelMseSettings, distance_name
from experiments.tables import select


def limit(tables: Tables, settings: KernelMseSettings) -> float:
    """The Bonferroni limit of |z| over all points of the run."""
    count = len(tables["points"]) + len(tables.get("large", []))
    return bonferroni(settings.false_alarm, count)


def verdicts(tables: Tables, settings: KernelMseSettings) -> Iterator[Verdict]:
    largest = limit(tables, settings)
    expected = f"all |z| <= {largest:.2f}; false alarms in {settings.false_alarm:.1%} of runs"
    for estimator in settings.estimators:
        for coupling in settings.couplings:
            rows = select(tables["points"], estimator=estimator, coupling=coupling)
            claim = f"MSE of {estimator} features, {coupling} rows, equals its closed form"
            yield verdict(claim, expected, rows, largest)
    for coupling in settings.couplings if "positive" in settings.estimators else ():
        rows = select(tables["large"], coupling=coupling)
        distances = ", ".join(f"{distance:g}" for distance in settings.large_distances)
        place = f"at u = {distances}, d = {settings.large_dim}"
        claim = f"variance of positive features, {coupling} rows, equals its closed form {place}"
        yield verdict(claim, expected, rows, largest)


def verdict(claim: str, expected: str, rows: list[Record], largest: float) -> Verdict:
    if not rows:
        return Verdict(claim, expected, "no point measured", False)
    worst = max(rows, key=lambda row: abs(row["z"]))
    errors = [row["standard_error"] / row["expected"] for row in rows]
    name = distance_name(worst["estimator"])
    return Verdict(
        claim=claim,
        expected=expected,
        measured=f"{len(rows)} points, max |z| {abs(worst['z']):.2f} at {name} = {worst['distance']:g}, "
        f"m = {worst['num_features']}; standard errors {min(errors):.2g} .. {max(errors):.2g} of the value",
        holds=bool(all(abs(row["z"]) <= largest for row in rows)),
    )


def summaries(tables: Tables, settings: KernelMseSettings) -> list[Summary]:
    width = settings.num_features[len(settings.num_features) // 2]
    result = []
    for estimator in settings.estimators:
        curves = {
            (row["coupling"], row["distance"]): row["relative_mse"]
            for row in tables["curves"]
            if row["estimator"] == estimator and row["num_features"] == width
        }
        name = distance_name(estimator)
        rows = tuple(
            (coupling, *(f"{curves.get((coupling, distance), float('nan')):.3g}" for distance in settings.distances))
            for coupling in settings.couplings
        )
        header = ("relative MSE", *(f"{name} = {distance:g}" for distance in settings.distances))
        result.append(Summary(f"{estimator}, {width} features, d = {settings.dim}: closed form", header, rows))
    return result
