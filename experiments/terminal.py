"""What a run shows: a progress bar on a terminal, tables and verdicts everywhere."""

import contextlib
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from experiments import experiment
from experiments.experiment import Summary, Verdict

MEMORY = 600.0  # seconds of the past that the rate is taken from: cells may take a minute each
STYLES = {True: "green", False: "bold red", None: "cyan"}


def console() -> Console:
    """Standard output; 120 columns wide, and plain text, where it is not a terminal."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=120)


class RateColumn(ProgressColumn):
    """Cells per minute, or per second where they are many."""

    def render(self, task: Task) -> Text:
        speed = task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f} cells/s" if speed >= 1 else f"{60 * speed:.1f} cells/min", style="cyan")


@contextlib.contextmanager
def progress_bar(screen: Console) -> Iterator[experiment.Progress]:
    """A bar that follows the cells of a run, with rate and remaining time; nothing where this is not a terminal."""
    if not screen.is_terminal:
        yield experiment.silent
        return
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=screen, transient=True, speed_estimate_period=MEMORY) as bar:
        task = bar.add_task("", total=None)

        def report(done: int, total: int, key: str) -> None:
            if bar.tasks[0].total is None:  # cells that were stored took no time: they are not part of the rate
                bar.reset(task, total=total, completed=done, description=escape(key))
            bar.update(task, completed=done, description=escape(key))

        yield report


def show_heading(screen: Console, which: experiment.Experiment) -> None:
    """The name and the claim of an experiment, above its results."""
    screen.rule(f"[bold]{escape(which.name)}[/]", align="left")
    screen.print(escape(which.claim), soft_wrap=True)


def show_summaries(screen: Console, summaries: Sequence[Summary]) -> None:
    for summary in summaries:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(summary.header):
            table.add_column(escape(name), justify="right" if index else "left", no_wrap=True)
        for index, row in enumerate(summary.rows, start=1):
            table.add_row(*map(escape, row), end_section=index in summary.sections)
        screen.print(f"[bold]{escape(summary.title)}[/]", soft_wrap=True)
        screen.print(table)


def show_verdicts(screen: Console, verdicts: Sequence[Verdict]) -> None:
    """For each verdict the word, the claim and what was measured; what was expected, where it is not as before."""
    expected = ""
    for verdict in verdicts:
        lines = [
            f"[{STYLES[verdict.holds]}]{verdict.word}[/]: {escape(verdict.claim)}",
            f"    measured: {escape(verdict.measured)}",
        ]
        if verdict.expected != expected:
            expected = verdict.expected
            lines.append(f"    expected: {escape(expected)}")
        for line in lines:
            screen.print(line, soft_wrap=True)
