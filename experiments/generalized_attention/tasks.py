"""Batches of three tasks in which tokens have to be found elsewhere in the sequence."""

from dataclasses import dataclass

import numpy as np

from experiments.texts import proteins

LETTERS = "ACDEFGHIKLMNPQRSTVWXY"
SYMBOLS, KINDS = 16, 8
MASKED = 0.15

SIZES = {"copy": (SYMBOLS + 1, SYMBOLS), "recall": (KINDS * KINDS + KINDS, KINDS), "proteins": (22, 21)}
"""Numbers of tokens and of answers."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Tokens (n, L), answers (n, L), and where an answer is asked for (n, L)."""

    tokens: np.ndarray
    answers: np.ndarray
    asked: np.ndarray


def make_batch(task: str, length: int, num: int, rng: np.random.Generator, *, held_out: bool = False) -> Batch:
    """`num` sequences of a task."""
    if task == "copy":
        return copy(length, num, rng)
    return recall(length, num, rng) if task == "recall" else masked_proteins(length, num, rng, held_out=held_out)


def copy(length: int, num: int, rng: np.random.Generator) -> Batch:
    """Symbols, then as many blanks, to be filled with the symbols."""
    half = length // 2
    symbols = rng.integers(SYMBOLS, size=(num, half))
    tokens = np.concatenate([symbols, np.full_like(symbols, SYMBOLS)], axis=1)
    return Batch(tokens, np.tile(symbols, (1, 2)), tokens == SYMBOLS)


def recall(length: int, num: int, rng: np.random.Generator) -> Batch:
    """Pairs of a name and a value, each one token, then names; every name gets the value that it was paired with.

    A name has one value within a sequence.
    """
    half = length // 2
    values = rng.integers(KINDS, size=(num, KINDS))
    named = np.argsort(rng.random((num, max(half, KINDS))), axis=1)[:, :half] % KINDS
    asked = np.take_along_axis(named, rng.integers(half, size=(num, half)), axis=1)
    names = np.concatenate([named, asked], axis=1)
    answers = np.take_along_axis(values, names, axis=1)
    is_query = np.arange(2 * half) >= half
    tokens = np.where(is_query, KINDS * KINDS + names, KINDS * names + answers)
    return Batch(tokens, answers, np.broadcast_to(is_query, tokens.shape))


def masked_proteins(length: int, num: int, rng: np.random.Generator, *, held_out: bool) -> Batch:
    """Stretches of proteins with 15 % of their residues hidden; every tenth protein is held out."""
    chosen = [p for i, p in enumerate(proteins()) if (i % 10 == 0) == held_out and len(p) >= length]
    rows = []
    for index in rng.integers(len(chosen), size=num):
        start = rng.integers(len(chosen[index]) - length + 1)
        rows.append([LETTERS.index(letter) for letter in chosen[index][start : start + length]])
    answers = np.array(rows)
    asked = rng.random(answers.shape) < MASKED
    return Batch(np.where(asked, len(LETTERS), answers), answers, asked)
