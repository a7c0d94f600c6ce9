"""Sizes of the models, of their trainings and of what is measured."""

from dataclasses import dataclass, field

from experiments.compressed_stream.evictions import EVICTIONS
from experiments.experiment import Settings
from experiments.language_model.documents import KINDS

EXACT, CUT = "exact", "exact, context cut"
MERGED, FITTED, FEATURES = "merged keys", "merged keys, fitted", "FAVOR+"
METHODS = (MERGED, FITTED, *EVICTIONS, FEATURES)
"""What stands in place of exact attention, with a bounded number of rows."""

MODULE = "LinearAttention"
ARMS = (EXACT, MODULE)
"""What the small models are trained with."""

TEXTS: dict[str, tuple[str, ...]] = {"novel": ("novel",), "novel, half with quotations": KINDS}
"""What the small models are trained on: kinds of documents, as many of each."""


@dataclass(frozen=True)
class Training:
    """Sizes of a model with grouped queries, and of its training.

    stages : (characters of a document, documents in a step, steps), one stage after the other.
    """

    width: int = 128
    heads: int = 4
    key_heads: int = 2
    layers: int = 2
    stages: tuple[tuple[int, int, int], ...] = ((128, 16, 200), (512, 8, 300), (2048, 2, 25))
    learning_rate: float = 4e-3


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Sizes.

    training : of the model whose attention is replaced. length, num_documents : of what it reads then, of each kind.
    memories : rows of each key head, 4 sinks among them. cut : keys that exact attention sees when its context is cut.
    small : of the models that are trained twice, with `num_features`. repetitions, held_out : of these, their weights
    and batches; and documents that they are compared on.
    """

    training: Training = field(default_factory=Training)
    length: int = 2048
    num_documents: int = 8
    memories: tuple[int, ...] = (96, 192, 384)
    cut: int = 128
    small: Training = field(default_factory=lambda: Training(width=64, stages=((128, 16, 150),), learning_rate=6e-3))
    num_features: int = 256
    repetitions: int = 4
    held_out: int = 128
