"""training_stability: a character model trained through random features.

All arms of one repetition start from the same weights and see the same batches; at intervals the denominators of the
features are compared with the exact ones. A training that goes on from a checkpoint gives the same numbers, bit by bit.
"""

from dataclasses import dataclass
from pathlib import Path

from experiments.experiment import Cell, Experiment, ResumableCell, Settings, Tables
from experiments.training_stability.figures import plot, summaries
from experiments.training_stability.verdicts import verdicts


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Sizes of the model, of the training, and the arms.

    redraw_every, diagnose_every, save_every : steps between new maps, looks at denominators, and checkpoints.
    """

    features: tuple[str, ...] = ("trig", "positive", "hyp+", "OPRF")
    norms: tuple[str, ...] = ("chi", "constant")
    repetitions: int = 3
    width: int = 32
    heads: int = 2
    num_features: int = 32
    length: int = 32
    batch: int = 32
    steps: int = 200
    learning_rate: float = 1e-2
    redraw_every: int = 10
    diagnose_every: int = 10
    save_every: int = 50
    validation_windows: int = 64


@dataclass(frozen=True)
class TrainingCell(ResumableCell):
    """One training: "softmax", "none" (every token sees itself alone), or features of a kind.

    norms : "chi" or "constant". redraw : whether maps are drawn again.
    """

    attention: str
    repetition: int
    norms: str = ""
    redraw: bool = False

    @property
    def name(self) -> str:
        arm = f"{self.attention}/{self.norms}/{'redraw' if self.redraw else 'fixed'}" if self.norms else self.attention
        return f"{arm}/{self.repetition}"

    def resume(self, settings: TrainingSettings, checkpoint: Path | None) -> Tables:
        from experiments.training_stability.training import train

        return train(self, settings, checkpoint)


def cells(settings: TrainingSettings) -> list[Cell]:
    return [
        cell
        for repetition in range(settings.repetitions)
        for cell in (
            *(TrainingCell(name, repetition) for name in ("softmax", "none")),
            *(
                TrainingCell(name, repetition, norms, redraw)
                for name in settings.features
                for norms in settings.norms
                for redraw in (False, True)
            ),
        )
    ]


EXPERIMENT = Experiment(
    name="training_stability",
    claim="Positive features train like softmax attention; trigonometric ones lose the sign of their denominators.",
    settings=TrainingSettings(),
    quick=TrainingSettings(
        features=("trig", "positive"), norms=("chi",), repetitions=1, batch=24, length=16, steps=90, save_every=45
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    requires=("torch",),
)
