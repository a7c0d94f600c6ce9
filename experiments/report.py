"""One web page with the results of many runs: it needs no scripts, no network and no other file.

For each experiment the claim, the figures with the verdicts beside them, the numbers, and how it was run; then the
verdicts of all experiments.
"""

import base64
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from experiments.experiment import Record, Results, Summary, Verdict
from experiments.html import Html, element

STYLE = Path(__file__).with_name("report.css")
MARKS = {True: ("holds", "good"), False: ("does not hold", "bad"), None: ("reported", "neutral")}
LARGEST_SVG = 1_500_000  # bytes; beyond, the page takes the PNG

Run = tuple[Path, Results]


def gather(folder: Path, order: Sequence[str] = ()) -> list[Run]:
    """The results in a folder and in the folders in it, those named in `order` first; ValueError if there are none."""
    found = [place for place in [folder, *sorted(folder.glob("*"))] if (place / "results.json").is_file()]
    if not found:
        raise ValueError(f"no results in {folder}: expected results.json there or in a folder in it; run some first.")
    runs = [(place, Results.read(place)) for place in found]
    rank = {name: index for index, name in enumerate(order)}
    return sorted(runs, key=lambda run: rank.get(run[1].experiment, len(rank)))


def page(runs: Sequence[Run]) -> str:
    names = anchors(runs)
    body = element(
        "main",
        element("h1", "Experiments"),
        element("p", counted(list(chain.from_iterable(results.verdicts for _, results in runs)))),
        contents(runs, names),
        *(section(folder, results, name) for (folder, results), name in zip(runs, names, strict=True)),
        element("section", element("h2", "All verdicts", id="verdicts"), overview(runs, names)),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", "Experiments: verdicts and figures"),
        element("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', body), lang='en')}\n"


def anchors(runs: Sequence[Run]) -> list[str]:
    """A name within the page for each run; two runs of one experiment get different ones."""
    names: list[str] = []
    for _, results in runs:
        name = results.experiment
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def counted(verdicts: Sequence[Verdict]) -> str:
    """How many claims hold, in words."""
    number = {holds: sum(verdict.holds is holds for verdict in verdicts) for holds in MARKS}
    claims = number[True] + number[False]
    reported = "1 number is" if number[None] == 1 else f"{number[None]} numbers are"
    return f"{number[True]} of {claims} claims hold; {reported} only reported."


def contents(runs: Sequence[Run], names: Sequence[str]) -> Html:
    links = []
    for (_, results), name in zip(runs, names, strict=True):
        mark = badge(worst(results.verdicts))
        links.append(element("li", element("a", name, href=f"#{name}"), " ", mark))
    links.append(element("li", element("a", "All verdicts", href="#verdicts")))
    return element("nav", element("h2", "Contents"), element("ul", *links), aria_label="Contents")


def worst(verdicts: Sequence[Verdict]) -> bool | None:
    """False if a claim fails, True if some hold, None if nothing is claimed."""
    found = {verdict.holds for verdict in verdicts}
    return False if False in found else True if True in found else None


def badge(holds: bool | None) -> Html:
    word, kind = MARKS[holds]
    return element("span", word, class_=f"badge {kind}")


def overview(runs: Sequence[Run], names: Sequence[str]) -> Html:
    """The verdicts of all experiments, in short."""
    rows: list[list[Html]] = []
    for (_, results), name in zip(runs, names, strict=True):
        link = element("a", name, href=f"#{name}")
        for verdict in results.verdicts:
            rows.append([badge(verdict.holds), link, element("span", verdict.claim)])
    return verdict_table("All verdicts", ("verdict", "experiment", "claim"), rows)


def verdict_lines(verdicts: Sequence[Verdict], caption: str) -> Html:
    """The verdicts of one experiment, with what was expected and what was measured."""
    header = ("verdict", "claim", "expected", "measured")
    rows = [[badge(v.holds), *(element("span", text) for text in (v.claim, v.expected, v.measured))] for v in verdicts]
    return verdict_table(caption, header, rows)


def verdict_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[Html]]) -> Html:
    """A table that becomes a block for each row where the screen is narrow, with the names of the columns repeated."""
    lines = [
        element("tr", *(element("td", cell, data_label=name) for name, cell in zip(header, row, strict=True)))
        for row in rows
    ]
    return element(
        "table",
        element("caption", caption, class_="unseen"),
        element("thead", element("tr", *(element("th", name, scope="col") for name in header))),
        element("tbody", *lines),
        class_="verdicts",
    )


def section(folder: Path, results: Results, name: str) -> Html:
    verdicts = element(
        "div",
        element("h3", "Verdicts"),
        element("p", counted(results.verdicts)),
        verdict_lines(results.verdicts, f"Verdicts of {name}"),
    )
    drawn = figures(folder, results)
    return element(
        "section",
        element("h2", name, id=name),
        element("p", results.claim, class_="claim"),
        element("div", *([element("div", *drawn)] if drawn else []), verdicts, class_="beside"),
        *([element("h3", "Numbers")] if results.summaries else []),
        *map(summary_table, results.summaries),
        element(
            "details",
            element("summary", "How it was run"),
            *([element("p", element("code", results.command))] if results.command else []),
            element("p", f"{results.seconds:.0f} s in cells."),
            element("h3", "Settings"),
            record_table(results.settings, f"Settings of {name}"),
            element("h3", "Environment"),
            record_table(results.environment, f"Environment of {name}"),
            element("h3", "Units"),
            record_table({**results.units, "all other columns": "dimensionless"}, f"Units of {name}"),
        ),
    )


def figures(folder: Path, results: Results) -> list[Html]:
    """The figures that were drawn from these results, with captions that state the claim."""
    found = [(figure_file(folder, name), name, caption) for name, caption in results.figures.items()]
    return [figure(path, name, str(caption), results.claim) for path, name, caption in found if path]


def figure_file(folder: Path, name: str) -> Path | None:
    """The drawing, or the picture where the drawing is large or missing; None if there is neither."""
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    if svg.is_file() and (svg.stat().st_size <= LARGEST_SVG or not png.is_file()):
        return svg
    return png if png.is_file() else None


def figure(path: Path, name: str, caption: str, claim: str) -> Html:
    """One figure, in a box of its own that scrolls where the screen is narrow."""
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = element("img", src=f"data:{kind};base64,{data}", alt=f"Figure {name}: {caption}")
    text = element("figcaption", element("strong", caption.rstrip(".") + "."), " Claim: ", claim)
    return element("figure", scrolling(image, f"Figure {name}", "picture"), text)


def summary_table(summary: Summary) -> Html:
    """A table of numbers; the first column names the row."""
    rows = []
    for index, row in enumerate(summary.rows, start=1):
        cells = [element("th", str(row[0]), scope="row"), *(element("td", str(value)) for value in row[1:])]
        rows.append(element("tr", *cells, **({"class_": "section"} if index in summary.sections else {})))
    table = element(
        "table",
        element("caption", summary.title),
        element("thead", element("tr", *(element("th", str(column), scope="col") for column in summary.header))),
        element("tbody", *rows),
        class_="numbers",
    )
    return scrolling(table, summary.title, "table")


def record_table(record: Record, caption: str) -> Html:
    rows = [element("tr", element("th", name, scope="row"), element("td", written(record[name]))) for name in record]
    table = element("table", element("caption", caption, class_="unseen"), element("tbody", *rows), class_="record")
    return scrolling(table, caption, "table")


def written(value: object) -> str:
    """A value of the settings, as a reader would write it."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def scrolling(content: Html, label: str, kind: str) -> Html:
    """A box that scrolls sideways by itself; it can be reached by the keyboard."""
    return element("div", content, class_=f"scroll {kind}", tabindex="0", role="region", aria_label=label)
