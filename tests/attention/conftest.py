"""Fixtures of the attention tests."""

import pytest

from randfeat.attention.numpy import causal, full, heads, key_block


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks, tasks and chunks with borders within short sequences, which take the fast pass too."""
    for module, name, size in (
        (heads, "SHORTEST", 1), (full, "TASK", 10), (full, "MOST_TASKS", 4), (heads, "FEW", 0),
        (heads, "block_rows", lambda *_: 5),
        (causal, "block_rows", lambda *_: 12), (causal, "SHORTEST", 4), (key_block, "CHUNK", 4),
        (key_block, "GROUP", 2),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, size)


@pytest.fixture
def recorded(monkeypatch):
    """`recorded(executor)`: a list of what its methods find from now on, call by call; None for what it leaves."""

    def record(executor, *methods):
        found = []
        for method in methods:
            own = getattr(executor, method)

            def recording(self, *arguments, own=own):
                found.append(own(self, *arguments))
                return found[-1]

            monkeypatch.setattr(executor, method, recording)
        return found

    return record
