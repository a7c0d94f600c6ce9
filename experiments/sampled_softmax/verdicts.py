"""What the numbers of sampled_softmax say."""

from experiments.agreement import bonferroni
from experiments.clocks import log_slope
from experiments.experiment import Summary, Tables, Verdict, reported
from experiments.sampled_softmax.settings import FITTED, PLAIN, SampledSoftmaxSettings
from experiments.tables import select

SMALL = 0.06  # total variation up to which first-order terms are claimed to predict it
HIGHER_ORDERS = 0.1  # relative, what terms beyond them may add
ROUNDING = 1e-10
SLOPE_FROM = 4096  # classes; below, the cost of a call shows
TREE_SLOPE, DIRECT_SLOPE = 0.5, 0.8


def verdicts(tables: Tables, settings: SampledSoftmaxSettings) -> list[Verdict]:
    return [
        path_verdict(tables),
        *(frequency_verdict(tables, settings, sampler) for sampler in ("tree", "Gumbel-max")),
        prediction_verdict(tables, settings),
        features_verdict(tables, settings),
        uniform_verdict(tables, settings, "total_variation", "total variation from the softmax"),
        plain_verdict(tables, settings),
        signed_verdict(tables),
        unbiased_verdict(tables),
        gradient_verdict(tables, settings),
        uniform_verdict(tables, settings, "bias_of_one", "bias of the gradient of a sampled loss, one negative"),
        *speed_verdicts(tables, settings),
    ]


def alpha(settings: SampledSoftmaxSettings) -> float:
    """The level of each of the tests of a run: two samplers, the two z of gradients, and the predictions."""
    predictions = len(settings.taus) * len(settings.num_features)
    return settings.false_alarm / (4 * settings.num_tested + predictions)


def path_verdict(tables: Tables) -> Verdict:
    worst = max(row["disagreement"] for row in select(tables["frequencies"], sampler="tree"))
    return Verdict(
        claim="the probability that the tree gives a class is its feature kernel over the sum of all",
        expected=f"equal to {ROUNDING:g}, by induction over the path",
        measured=f"largest relative difference {worst:.1e}",
        holds=worst <= ROUNDING,
    )


def frequency_verdict(tables: Tables, settings: SampledSoftmaxSettings, sampler: str) -> Verdict:
    rows = select(tables["frequencies"], sampler=sampler)
    least = min(row["p_value"] for row in rows)
    law = "its law" if sampler == "tree" else "the softmax"
    return Verdict(
        claim=f"frequencies of {sampler} draws follow {law}",
        expected=f"p-values of chi-square >= {alpha(settings):.1e}; false alarms of all tests in "
        f"{settings.false_alarm:.1%} of runs",
        measured=f"smallest of {len(rows)}: {least:.2g}, {rows[0]['num_draws']} draws each",
        holds=least >= alpha(settings),
    )


def prediction_verdict(tables: Tables, settings: SampledSoftmaxSettings) -> Verdict:
    """The delta method, where its prediction is small."""
    rows = [row for row in select(tables["laws"], law=PLAIN) if row["predicted"] <= SMALL]
    limit = bonferroni(alpha(settings), 1, settings.num_maps)
    ratios = [row["total_variation"] / row["predicted"] for row in rows]
    return Verdict(
        claim="plain features: the delta method predicts the mean total variation",
        expected=f"where it is below {SMALL:g}, within {HIGHER_ORDERS:.0%} and {limit:.1f} standard errors",
        measured=f"measured over predicted {min(ratios):.3f} .. {max(ratios):.3f} at {len(rows)} points"
        if rows
        else "no point",
        holds=bool(rows)
        and all(
            abs(row["total_variation"] - row["predicted"])
            <= HIGHER_ORDERS * row["predicted"] + limit * row["standard_error"]
            for row in rows
        ),
    )


def at_width(tables: Tables, settings: SampledSoftmaxSettings, law: str, column: str, width: int) -> list[float]:
    return [select(tables["laws"], law=law, num_features=width, tau=tau)[0][column] for tau in settings.taus]


def features_verdict(tables: Tables, settings: SampledSoftmaxSettings) -> Verdict:
    ends = min(settings.num_features), max(settings.num_features)
    ratios = [
        more / few
        for law in (PLAIN, FITTED)
        for few, more in zip(*(at_width(tables, settings, law, "total_variation", m) for m in ends), strict=True)
    ]
    return Verdict(
        claim="the law comes closer to the softmax with the number of features, at every τ",
        expected=f"smaller total variation at {ends[1]} than at {ends[0]} features",
        measured=f"ratios {min(ratios):.2f} .. {max(ratios):.2f}; {(ends[0] / ends[1]) ** 0.5:.2f} is m^(-1/2)",
        holds=max(ratios) < 1,
    )


def uniform_verdict(tables: Tables, settings: SampledSoftmaxSettings, column: str, what: str) -> Verdict:
    width = max(settings.num_features)
    tree, uniform = (at_width(tables, settings, law, column, m) for law, m in ((FITTED, width), ("uniform", 0)))
    pairs = ", ".join(
        f"τ={tau:g}: {a:.3g} against {b:.3g}" for tau, a, b in zip(settings.taus, tree, uniform, strict=True)
    )
    return Verdict(
        claim=f"{what}: {width} fitted features against uniform sampling",
        expected="smaller at every τ",
        measured=pairs,
        holds=all(a < b for a, b in zip(tree, uniform, strict=True)),
    )


def plain_verdict(tables: Tables, settings: SampledSoftmaxSettings) -> Verdict:
    width = max(settings.num_features)
    plain, tuned = (at_width(tables, settings, law, "total_variation", width) for law in (PLAIN, FITTED))
    ratios = ", ".join(f"τ={tau:g}: {b:.3g} / {a:.3g}" for tau, a, b in zip(settings.taus, plain, tuned, strict=True))
    return reported(f"total variation of fitted over plain features, {width} of them", ratios)


def signed_verdict(tables: Tables) -> Verdict:
    width = max(row["num_features"] for row in tables["signed"])
    shares = ", ".join(f"τ={row['tau']:g}: {row['share']:.2g}" for row in select(tables["signed"], num_features=width))
    return reported(
        f"share of classes to which {width} trigonometric features give a weight that is not positive", shares
    )


def unbiased_verdict(tables: Tables) -> Verdict:
    worst = max(row["bias_of_one"] for row in select(tables["laws"], law="softmax"))
    return Verdict(
        claim="negatives drawn from the softmax itself leave the gradient unbiased",
        expected="0 up to rounding, for one negative already: the corrected logits add up to the exact sum",
        measured=f"largest relative bias {worst:.1e}",
        holds=worst <= ROUNDING,
    )


def gradient_verdict(tables: Tables, settings: SampledSoftmaxSettings) -> Verdict:
    """Sampled gradients with one negative against their exact mean."""
    rows = select(tables["gradients"], num_negatives=1)
    limit = bonferroni(alpha(settings), settings.dim)
    worst = max(row["z"] for row in rows)
    return Verdict(
        claim="mean of sampled gradients, one negative from the tree or a uniform one, equals its exact value",
        expected=f"all coordinates within {limit:.2f} standard errors",
        measured=f"max |z| {worst:.2f}, {rows[0]['num_samples']} samples for each of {len(rows)} means",
        holds=worst <= limit,
    )


def speed_verdicts(tables: Tables, settings: SampledSoftmaxSettings) -> list[Verdict]:
    """How time for a draw grows with the number of classes."""
    result = []
    cases = (("tree", f"below {TREE_SLOPE:g}: O(m log n), and caches"), ("Gumbel-max", f"above {DIRECT_SLOPE:g}: O(n)"))
    for sampler, expected in cases:
        rows = [row for row in select(tables["speed"], sampler=sampler) if row["num_classes"] >= SLOPE_FROM]
        sizes = [row["num_classes"] for row in rows]
        slope, wall = (log_slope(sizes, [row[clock] for row in rows]) for clock in ("processor", "wall"))
        enough = len(rows) >= 3 and not settings.quick  # a claim on times of few calls would be noise
        result.append(
            Verdict(
                claim=f"{sampler}: growth of the time for a draw with the number of classes, n >= {SLOPE_FROM}",
                expected=f"log-log slope {expected}"
                if enough
                else "nothing claimed in quick runs, or for fewer than three sizes",
                measured=f"{slope:.2f} in processor time, {wall:.2f} in wall time; "
                f"{1e6 * rows[-1]['processor']:.3g} µs at n = {sizes[-1]}"
                if rows
                else "no size",
                holds=(slope < TREE_SLOPE if sampler == "tree" else slope > DIRECT_SLOPE) if enough else None,
            )
        )
    return result


def summaries(tables: Tables, settings: SampledSoftmaxSettings) -> list[Summary]:
    names = [("uniform", 0), ("quadratic", 0), *((law, m) for law in (PLAIN, FITTED) for m in settings.num_features)]
    header = ("law", *(f"τ = {tau:g}" for tau in settings.taus))
    result = []
    for column, title in (
        ("total_variation", "total variation from the softmax"),
        ("bias_of_one", "relative bias of the gradient, one negative"),
    ):
        rows = tuple(
            (f"{law}, m = {m}" if m else law, *(f"{x:.3f}" for x in at_width(tables, settings, law, column, m)))
            for law, m in names
        )
        result.append(Summary(title, header, rows))
    sizes = settings.speed_classes
    times = tuple(
        (sampler, *(f"{1e6 * row['processor']:.3g}" for row in select(tables["speed"], sampler=sampler)))
        for sampler in ("tree", "Gumbel-max")
    )
    return [*result, Summary("microseconds of processor time for a draw", ("", *(f"n = {n}" for n in sizes)), times)]
