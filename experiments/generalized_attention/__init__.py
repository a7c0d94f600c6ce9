"""generalized_attention: other functions than the exponential, with and without renormalization, in small models.

All arms of one task and repetition start from the same weights and see the same batches.
"""

from dataclasses import dataclass

from experiments.experiment import Cell, Experiment, Settings, Tables
from experiments.generalized_attention.outcome import plot, summaries, verdicts


@dataclass(frozen=True)
class GeneralizedSettings(Settings):
    """Tasks, functions, and sizes of model and training."""

    tasks: tuple[str, ...] = ("copy", "recall", "proteins")
    functions: tuple[str, ...] = ("relu", "exp", "sigmoid", "abs", "trig")
    repetitions: int = 3
    length: int = 32
    width: int = 32
    num_features: int = 32
    batch: int = 32
    steps: int = 200
    learning_rate: float = 1e-2
    redraw_every: int = 10
    test_examples: int = 256


@dataclass(frozen=True)
class TrainingCell(Cell):
    """One training with one function; "softmax" is exact attention, always renormalized."""

    task: str
    function: str
    renormalized: bool
    repetition: int

    @property
    def name(self) -> str:
        return f"{self.task}/{self.function}/{'ratio' if self.renormalized else 'sum'}/{self.repetition}"

    def measure(self, settings: GeneralizedSettings) -> Tables:
        from experiments.generalized_attention.training import train

        row = {
            "task": self.task,
            "function": self.function,
            "renormalized": self.renormalized,
            "repetition": self.repetition,
        }
        return {"trainings": [row | train(self, settings)]}


def cells(settings: GeneralizedSettings) -> list[Cell]:
    return [
        TrainingCell(task, function, renormalized, repetition)
        for task in settings.tasks
        for repetition in range(settings.repetitions)
        for function in ("softmax", *settings.functions)
        for renormalized in (True, False)
        if renormalized or function != "softmax"
    ]


EXPERIMENT = Experiment(
    name="generalized_attention",
    claim="Renormalized attention with positive features trains, whatever the function.",
    settings=GeneralizedSettings(),
    quick=GeneralizedSettings(
        tasks=("copy", "recall"), functions=("relu", "exp"), repetitions=1, batch=16, length=16, steps=60
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    requires=("torch",),
)
