"""What is computed: embeddings and states of passages, and which documents a phrase finds."""

from dataclasses import dataclass

import numpy as np

from experiments.error_propagation.model import (
    NUM_LAYERS,
    PropagationSettings,
    Replacement,
    exact_states,
    features,
    operators,
)
from experiments.experiment import Cell, Record, Tables
from experiments.heads import relative_error
from experiments.minilm import Attention, load_minilm, softmax_attention
from experiments.texts import passage

NUM_NEAREST = 5
PHRASE = 160  # characters, about 30 words


@dataclass(frozen=True)
class PassageCell(Cell):
    """One passage of so many tokens through the model, with one kind of attention."""

    method: str
    size: int
    share: float
    num_tokens: int

    def measure(self, settings: PropagationSettings) -> Tables:
        """Rows of `embeddings`, cosines by what was replaced, and of `states`, errors after each layer."""
        replacement = Replacement(self.method, self.size)
        tables: Tables = {"embeddings": [], "states": [], "retrieval": []}
        for draw in range(settings.num_draws if replacement in features(settings) else 1):
            layers = []
            for layer in range(NUM_LAYERS):
                rng = settings.rng(f"{self.method}/{self.size}/{self.share}", layer, draw)
                layers.append(replacement.attention(layer, rng, settings))
            row: Record = {"method": self.method, "size": self.size, "passage": self.share}
            row |= {"num_tokens": self.num_tokens, "draw": draw}
            for name, rows in replaced(layers, exact_states(self.share, self.num_tokens)).items():
                tables[name] += [row | more for more in rows]
        return tables


def replaced(attentions: list[Attention], exact: tuple[np.ndarray, ...]) -> dict[str, list[Record]]:
    """What replacing one layer, and the first 1, 2, ... layers, does to the embedding, and all layers to the states."""
    encoder = load_minilm()
    target = encoder.sentence(exact[-1])

    def cosine(x: np.ndarray, start: int) -> float:
        for layer in range(start, NUM_LAYERS):
            x = encoder.bert.layer(layer, x, softmax_attention)
        return float(encoder.sentence(x) @ target)

    embeddings, states, x = [], [], exact[0]
    for layer, attention in enumerate(attentions):
        alone = encoder.bert.layer(layer, exact[layer], attention)
        x = encoder.bert.layer(layer, x, attention)
        embeddings += [
            {"replaced": "one", "layer": layer + 1, "cosine": cosine(alone, layer + 1)},
            {"replaced": "first", "layer": layer + 1, "cosine": cosine(x, layer + 1)},
        ]
        states.append(
            {
                "layer": layer + 1,
                "error": relative_error(x, exact[layer + 1]),
                "own_error": relative_error(alone, exact[layer + 1]),
            }
        )
    return {"embeddings": embeddings, "states": states}


@dataclass(frozen=True)
class RetrievalCell(Cell):
    """All documents through the model with one kind of attention; phrases, which are short, with exact attention."""

    method: str
    size: int

    def measure(self, settings: PropagationSettings) -> Tables:
        """A row for each phrase: the rank of its own document, and how many of the exact model's nearest are kept."""
        shares = [float(x) for x in np.linspace(0.02, 0.97, settings.num_documents)]
        replacement, bert = Replacement(self.method, self.size), load_minilm().bert
        layers = [
            replacement.attention(layer, settings.rng("retrieval", self.method, self.size, layer), settings)
            for layer in range(NUM_LAYERS)
        ]
        phrases = np.stack([phrase_embedding(share, settings.num_tokens) for share in shares])
        exact = np.stack([load_minilm().sentence(exact_states(share, settings.num_tokens)[-1]) for share in shares])
        documents = []
        for share in shares:
            x = exact_states(share, settings.num_tokens)[0]
            for layer, attention in enumerate(layers):
                x = bert.layer(layer, x, attention)
            documents.append(load_minilm().sentence(x))
        found, expected = (np.argsort(-phrases @ set_.T, axis=-1) for set_ in (np.stack(documents), exact))
        rows: list[Record] = []
        for index, share in enumerate(shares):
            kept = set(found[index][:NUM_NEAREST]) & set(expected[index][:NUM_NEAREST])
            rows.append(
                {
                    "method": self.method,
                    "size": self.size,
                    "passage": share,
                    "rank": int(np.flatnonzero(found[index] == index)[0]) + 1,
                    "kept": len(kept) / NUM_NEAREST,
                    "same_first": bool(found[index][0] == expected[index][0]),
                    "cosine": float(documents[index] @ exact[index]),
                }
            )
        return {"embeddings": [], "states": [], "retrieval": rows}


def phrase_embedding(share: float, num_tokens: int) -> np.ndarray:
    """The exact embedding of a phrase out of the middle of a document."""
    encoder = load_minilm()
    middle = passage(share, 8 * num_tokens)[2 * num_tokens :][:PHRASE]
    words = " ".join(middle.split(" ")[1:-1])
    return encoder.sentence(encoder.bert.run(encoder.tokens(words), softmax_attention))


def cells(settings: PropagationSettings) -> list[Cell]:
    none = Replacement("average")
    short = [none, *features(settings), *operators(settings)]
    passages = [(short, settings.num_tokens), ([none, *operators(settings)], settings.long_tokens)]
    searched = [Replacement("exact"), none]
    searched += [Replacement(method, settings.retrieval_features) for method in ("plain", "adapted")]
    searched += operators(settings)
    return [
        *(
            PassageCell(chosen.method, chosen.size, share, num_tokens)
            for replacements, num_tokens in passages
            for chosen in replacements
            for share in settings.passages
        ),
        *(RetrievalCell(chosen.method, chosen.size) for chosen in searched),
    ]
