"""What is computed: losses of the trained model with each attention, and the losses of small trainings."""

from dataclasses import dataclass

from experiments.experiment import Cell, Record, Tables
from experiments.language_model.documents import KINDS, documents
from experiments.language_model.settings import ARMS, CUT, EXACT, METHODS, TEXTS, ModelSettings

TABLES = ("losses", "curves", "final")


@dataclass(frozen=True)
class ReplacedCell(Cell):
    """All documents through the trained model, with one attention in all of its layers."""

    method: str
    memory: int

    def measure(self, settings: ModelSettings) -> Tables:
        """A row for each document: nats per character, and those of the characters of its quotations."""
        import torch

        from experiments.language_model.replacements import attention_of
        from experiments.language_model.training import losses, trained

        model, attention = trained(settings), attention_of(self.method, self.memory, settings)
        rows: list[Record] = []
        for kind in KINDS:
            read = documents(kind, settings.length, settings.num_documents, settings.rng("read", kind), held_out=True)
            for number in range(settings.num_documents):
                with torch.no_grad():
                    nats = losses(model, read.tokens[number : number + 1], attention)[0].double().numpy()
                quoted = nats[read.quoted[number, 1:]]
                row = {"method": self.method, "memory": self.memory, "kind": kind, "document": number}
                rows.append(row | {"nats": float(nats.mean()), "quoted": float(quoted.mean()) if len(quoted) else None})
        return {name: rows if name == "losses" else [] for name in TABLES}


@dataclass(frozen=True)
class CurveCell(Cell):
    """A small model trained from the start with one attention."""

    attention: str
    text: str
    repetition: int

    def measure(self, settings: ModelSettings) -> Tables:
        from experiments.language_model.training import curve

        return {"losses": [], **curve(self.attention, self.text, self.repetition, settings)}


def cells(settings: ModelSettings) -> list[Cell]:
    return [
        ReplacedCell(EXACT, settings.length),
        ReplacedCell(CUT, settings.cut),
        *(ReplacedCell(method, memory) for method in METHODS for memory in settings.memories),
        *(CurveCell(arm, text, i) for text in TEXTS for i in range(settings.repetitions) for arm in ARMS),
    ]
