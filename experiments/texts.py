"""A novel and a thousand proteins: the texts of experiments that run or train whole models."""

import functools
import gzip
from pathlib import Path

FOLDER = Path(__file__).parent / "data"


@functools.cache
def novel() -> str:
    """Jane Austen's *Mansfield Park*, 883 278 characters of 74 kinds, lines broken as printed."""
    with gzip.open(FOLDER / "austen_mansfieldpark.txt.gz", "rt", encoding="utf-8") as file:
        return file.read()


def passage(share: float, num_characters: int) -> str:
    """The novel from the first paragraph after this share of it, white space as single blanks.

    num_characters : how many to take before white space is joined.
    """
    start = novel().index("\n\n", int(len(novel()) * share)) + 2
    return " ".join(novel()[start : start + num_characters].split())


@functools.cache
def proteins() -> tuple[str, ...]:
    """1000 sequences of TrEMBL, drawn at random, in the twenty amino acids and X for an unknown residue."""
    with gzip.open(FOLDER / "trembl_1000.fasta.gz", "rt", encoding="utf-8") as file:
        entries = ("\n" + file.read()).split("\n>")[1:]
    return tuple("".join(entry.splitlines()[1:]) for entry in entries)
