"""Fixtures of the attention tests."""

import pytest

from randfeat.attention import blocked, blocked_causal, blocked_gradient, key_block


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks, pieces and chunks with borders within short sequences, which take the fast pass too."""
    for module, name, size in (
        (blocked, "SHORTEST", 1), (blocked, "BLOCK", 5), (blocked, "PIECE", 10), (blocked, "MOST_PIECES", 4),
        (blocked, "FEW", 0),
        (blocked_causal, "BLOCK", 8), (key_block, "CHUNK", 4),
        (blocked_gradient, "BLOCK", 5),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, size)
