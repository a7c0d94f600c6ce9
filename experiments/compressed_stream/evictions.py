"""Causal attention to some of the keys: which ones are kept is decided as the sequence goes on.

query, key (heads, n, d), value (heads, n, dv); logits are divided by √d. At no time are more than `memory` keys kept.
"""

from collections.abc import Callable

import numpy as np

NUM_SINKS = 4
POOLED = 7

Eviction = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def sinks_and_window(query: np.ndarray, key: np.ndarray, value: np.ndarray, memory: int) -> np.ndarray:
    """The first 4 keys, and the last ones. Source: Xiao et al. 2024, "Attention Sinks"."""
    position = np.arange(query.shape[-2])
    age = position[:, None] - position
    seen = (age >= 0) & ((age < memory - NUM_SINKS) | (position < NUM_SINKS))
    return weights(query, key, seen) @ value


def heavy_hitters(query: np.ndarray, key: np.ndarray, value: np.ndarray, memory: int) -> np.ndarray:
    """Half of the memory for the last keys, half for those that have had most weight so far, summed over queries.

    Source: Zhang et al. 2023, "H2O: Heavy-Hitter Oracle".
    """
    heads, length = query.shape[0], query.shape[1]
    kept, mass = np.zeros((heads, length), np.bool_), np.zeros((heads, length))
    output = np.empty((*query.shape[:-1], value.shape[-1]))
    for i in range(length):
        kept[:, i] = True
        seen = slice(0, i + 1)
        share = weights(query[:, i : i + 1], key[:, seen], kept[:, None, seen])[:, 0]
        output[:, i] = np.einsum("hn,hnd->hd", share, value[:, seen])
        mass[:, seen] += share
        if i + 1 >= memory:  # one key makes room for the next
            old = slice(0, i + 1 - memory // 2)
            weakest = np.argmin(np.where(kept[:, old], mass[:, old], np.inf), axis=-1)
            kept[np.arange(heads), weakest] = False
    return output


def observed(query: np.ndarray, key: np.ndarray, value: np.ndarray, memory: int) -> np.ndarray:
    """A third of the memory for old keys that the last chunk of queries gave most weight; chunks of a third.

    The weight of a key is the largest of 7 neighbours among those kept. The chunk itself and the one before it are
    kept whole. Source: Li et al. 2024, "SnapKV", which selects once, at the end of a prompt.
    """
    heads, length = query.shape[0], query.shape[1]
    size = memory // 3
    kept = np.zeros((heads, length), np.bool_)
    output = np.empty((*query.shape[:-1], value.shape[-1]))
    for start in range(0, length, size):
        stop = min(start + size, length)
        kept[:, start:stop] = True
        own, seen = slice(start, stop), slice(0, stop)
        visible = kept[:, None, seen] & (np.arange(stop) <= np.arange(start, stop)[:, None])
        share = weights(query[:, own], key[:, seen], visible)
        output[:, own] = share @ value[:, seen]
        for head in range(heads):
            old = np.flatnonzero(kept[head, :start])
            if len(old) > size:
                scores = np.pad(share[head].sum(axis=0)[old], POOLED // 2)
                pooled = np.lib.stride_tricks.sliding_window_view(scores, POOLED).max(axis=-1)
                kept[head, old[np.argsort(-pooled, kind="stable")[size:]]] = False
    return output


def weights(query: np.ndarray, key: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Softmax over the keys that are seen."""
    logits = np.where(seen, query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1]), -np.inf)
    share = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return share / share.sum(axis=-1, keepdims=True)


EVICTIONS: dict[str, Eviction] = {
    "sinks + window": sinks_and_window,
    "heavy hitters": heavy_hitters,
    "SnapKV-like": observed,
}
