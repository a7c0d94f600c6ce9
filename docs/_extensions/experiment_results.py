"""The directives `experiment` and `gallery`: what runs measured, from the numbers saved beside the gallery.

`experiment NAME` puts in figures, verdicts, summaries, and how it was run, out of `gallery/results/NAME`, which
`python -m experiments publish NAME` fills; where nothing is saved yet, a note says how to get it. `gallery` lists all
experiments in groups, with their claims and small pictures. Nothing is run here.
"""

import json
from pathlib import Path
from typing import Any

from cards import card, cards, folded, page_link, section, table_of_contents
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from experiments.gallery import THUMBNAIL
from experiments.registry import EXPERIMENTS, QUESTIONS
from experiments.report import counted, figure_file, written
from experiments.results import Results, Summary

FOLDER = "gallery/results"
MOST_ROWS = 40  # of a summary that is shown; longer ones are in the results


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("experiment", Experiment)
    app.add_directive("gallery", Gallery)
    return {"parallel_read_safe": True}


class Experiment(SphinxDirective):
    """One experiment by its name."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Everything that is saved of it."""
        name = self.arguments[0]
        folder = Path(self.env.srcdir) / FOLDER / name
        self.env.note_dependency(str(folder / "results.json"))
        if not (folder / "results.json").is_file():
            return [not_run(name)]
        results = Results.read(folder)
        if results.experiment != name:
            raise self.error(f"{folder} has the results of {results.experiment}, not of {name}.")
        return [
            *figures(folder, results),
            *verdicts(results),
            *folded("Numbers", [summary(item) for item in results.summaries if len(item.rows) <= MOST_ROWS]),
            *folded("How it was run", how_it_was_run(results)),
        ]


class Gallery(SphinxDirective):
    """Every experiment as a card with picture, title and claim; a section for each question."""

    def run(self) -> list[nodes.Node]:
        """The sections and the menu, in the order of the registry."""
        found: list[nodes.Node] = []
        for question, names in QUESTIONS.items():
            pages = [f"gallery/{name}" for name in names]
            menu = table_of_contents(question, pages, seen_from=self.env.docname)
            found.append(section(question, [menu, cards(self.card(name) for name in names)]))
        return found

    def card(self, name: str) -> nodes.container:
        """The picture where there is one, the title of the page as a link to it, the claim."""
        folder = Path(self.env.srcdir) / FOLDER / name
        content: list[nodes.Node] = []
        if (folder / THUMBNAIL).is_file():
            content.append(nodes.image(uri=f"/{FOLDER}/{name}/{THUMBNAIL}", alt=first_caption(folder), loading="lazy"))
        content.append(
            nodes.paragraph("", "", page_link(f"gallery/{name}", seen_from=self.env.docname), classes=["name"])
        )
        return card(*content, nodes.paragraph("", EXPERIMENTS[name].claim), classes=["experiment"])


def first_caption(folder: Path) -> str:
    """What the picture shows: the caption of the first figure."""
    captions = json.loads((folder / "results.json").read_text(encoding="utf-8"))["figures"]
    return next(iter(captions.values()))


def not_run(name: str) -> nodes.note:
    """What stands in for results."""
    commands = f"python -m experiments run {name}\npython -m experiments publish {name}"
    text = nodes.paragraph("", "This experiment was not run yet. To run it, and to put the results here:")
    return nodes.note("", text, nodes.literal_block(commands, commands, language="text"))


def figures(folder: Path, results: Results) -> list[nodes.Node]:
    """The drawings, each with a caption that states the claim."""
    found: list[nodes.Node] = []
    for name, caption in results.figures.items():
        path = figure_file(folder, name)
        if path is None:
            continue
        image = nodes.image(uri=f"/{FOLDER}/{results.experiment}/{path.name}", alt=f"{name}: {caption}")
        text = nodes.caption(
            "", "", nodes.strong("", caption.rstrip(".") + "."), nodes.Text(f" Claim: {results.claim}")
        )
        found.append(nodes.figure("", nodes.container("", image, classes=["experiment-figure"]), text))
    return found


def verdicts(results: Results) -> list[nodes.Node]:
    """How many claims hold, and each of them."""
    rows = [(verdict.word, verdict.claim, verdict.expected, verdict.measured) for verdict in results.verdicts]
    return [
        nodes.paragraph("", counted(results.verdicts)),
        table("Verdicts", ("verdict", "claim", "expected", "measured"), rows),
    ]


def summary(item: Summary) -> nodes.table:
    """A table of numbers."""
    return table(item.title, item.header, item.rows)


def how_it_was_run(results: Results) -> list[nodes.Node]:
    """Command, settings, seed and environment."""
    settings = [(name, written(value)) for name, value in results.settings.items()]
    environment = [(name, written(value)) for name, value in results.environment.items()]
    return [
        nodes.literal_block(results.command, results.command, language="text"),
        nodes.paragraph("", f"{results.seconds:.0f} s in cells."),
        table("Settings", ("setting", "value"), settings),
        table("Environment", ("environment", "value"), environment),
    ]


def table(title: str, header: Any, rows: Any) -> nodes.table:
    """Docutils' table of plain text, with a caption."""
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    for part, lines in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        for line in lines:
            part += nodes.row("", *(nodes.entry("", nodes.paragraph("", str(text))) for text in line))
        group += part
    return nodes.table("", nodes.title("", title), group)
