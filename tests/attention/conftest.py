"""Fixtures of the attention tests."""

import pytest

from randfeat.attention import blocked, blocked_causal, key_block


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks, pieces and chunks with borders within short sequences, which take the fast pass too."""
    for module, name, size in (
        (blocked, "SHORTEST", 1), (blocked, "PIECE", 10), (blocked, "MOST_PIECES", 4), (blocked, "FEW", 0),
        (blocked, "block_rows", lambda *_: 5),
        (blocked_causal, "block_rows", lambda *_: 8), (blocked_causal, "SHORTEST", 4), (key_block, "CHUNK", 4),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, size)
