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
    """`recorded(executor)`: a list of what its `attend` finds from now on, call by call; None for what it leaves."""

    def record(executor):
        found, attend = [], executor.attend

        def recording(self, problem):
            found.append(attend(self, problem))
            return found[-1]

        monkeypatch.setattr(executor, "attend", recording)
        return found

    return record
