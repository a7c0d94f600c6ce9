"""What the model reads: stretches of a novel, and documents that quote themselves.

Characters are numbered in the order of their codes. Documents for training come from the first nine tenths of the
novel, those for measuring from the last.
"""

import functools
from dataclasses import dataclass

import numpy as np

from experiments.texts import novel

HELD_OUT = 0.1
STRETCH = (16, 4)  # a quotation, or new text between two, is a sixteenth to a quarter of a document
QUOTED = 0.7  # share of the stretches
KINDS = ("novel", "quoting")


@functools.cache
def characters() -> np.ndarray:
    """The novel as numbers of characters."""
    kinds = {character: index for index, character in enumerate(sorted(set(novel())))}
    return np.array([kinds[character] for character in novel()])


def num_characters() -> int:
    """How many different characters there are."""
    return int(characters().max()) + 1


@dataclass(frozen=True, eq=False)
class Documents:
    """tokens : (n, length + 1). quoted : (n, length + 1), whether a character is part of a quotation."""

    tokens: np.ndarray
    quoted: np.ndarray


def documents(kind: str, length: int, num: int, rng: np.random.Generator, *, held_out: bool) -> Documents:
    """Documents of `length` characters, and the one after them.

    kind : "novel" for stretches of the novel; held out, they follow each other. "quoting" for stretches from
    anywhere in the novel, each a sixteenth to a quarter of the document, of which seven in ten repeat a part of the
    document so far.
    """
    text, border = characters(), int((1 - HELD_OUT) * len(characters()))
    source = text[border:] if held_out else text[:border]
    if kind == "quoting":
        made = [quoting(source, length + 1, rng) for _ in range(num)]
        tokens, quoted = (np.stack(parts) for parts in zip(*made, strict=True))
        return Documents(tokens, quoted)
    starts = np.arange(num) * length if held_out else rng.integers(0, len(source) - length, size=num)
    tokens = source[starts[:, None] + np.arange(length + 1)]
    return Documents(tokens, np.zeros(tokens.shape, np.bool_))


def quoting(source: np.ndarray, length: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One document that quotes itself, and where it does."""
    tokens, quoted = np.empty(0, source.dtype), np.empty(0, np.bool_)
    while len(tokens) < length:
        size = int(rng.integers(length // STRETCH[0], length // STRETCH[1] + 1))
        is_quotation = len(tokens) > size and rng.random() < QUOTED
        origin = tokens if is_quotation else source
        start = int(rng.integers(0, len(origin) - size))
        tokens = np.concatenate([tokens, origin[start : start + size]])
        quoted = np.concatenate([quoted, np.full(size, is_quotation)])
    return tokens[:length], quoted[:length]
