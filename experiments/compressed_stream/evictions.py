"""Causal attention to some of the keys: which ones are kept is decided as the sequence goes on.

query (heads, n, d), key (key heads, n, d), value (key heads, n, dv); logits are divided by √d. A key head serves a
group of query heads, one after the other, whose weights are added. At no time does one keep more than `memory` keys.
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
    grouped = in_groups(query, key)
    return (weights(grouped, key[:, None], seen) @ value[:, None]).reshape(*query.shape[:-1], -1)


def heavy_hitters(query: np.ndarray, key: np.ndarray, value: np.ndarray, memory: int) -> np.ndarray:
    """Half of the memory for the last keys, half for those that have had most weight so far, summed over queries.

    Source: Zhang et al. 2023, "H2O: Heavy-Hitter Oracle".
    """
    heads, length = key.shape[:2]
    grouped = in_groups(query, key)
    kept, mass = np.zeros((heads, length), np.bool_), np.zeros((heads, length))
    output = np.empty((*grouped.shape[:-1], value.shape[-1]))
    for i in range(length):
        kept[:, i] = True
        seen = slice(0, i + 1)
        share = weights(grouped[:, :, i : i + 1], key[:, None, seen], kept[:, None, None, seen])[:, :, 0]
        output[:, :, i] = np.einsum("hgn,hnd->hgd", share, value[:, seen])
        mass[:, seen] += share.sum(axis=1)
        if i + 1 >= memory:  # one key makes room for the next
            old = slice(0, i + 1 - memory // 2)
            weakest = np.argmin(np.where(kept[:, old], mass[:, old], np.inf), axis=-1)
            kept[np.arange(heads), weakest] = False
    return output.reshape(*query.shape[:-1], -1)


def observed(query: np.ndarray, key: np.ndarray, value: np.ndarray, memory: int) -> np.ndarray:
    """A third of the memory for old keys that the last chunk of queries gave most weight; chunks of a third.

    The weight of a key is the largest of 7 neighbours among those kept. The chunk itself and the one before it are
    kept whole. Source: Li et al. 2024, "SnapKV", which selects once, at the end of a prompt.
    """
    heads, length = key.shape[:2]
    grouped = in_groups(query, key)
    size = memory // 3
    kept = np.zeros((heads, length), np.bool_)
    output = np.empty((*grouped.shape[:-1], value.shape[-1]))
    for start in range(0, length, size):
        stop = min(start + size, length)
        kept[:, start:stop] = True
        own, seen = slice(start, stop), slice(0, stop)
        visible = kept[:, None, None, seen] & (np.arange(stop) <= np.arange(start, stop)[:, None])
        share = weights(grouped[:, :, own], key[:, None, seen], visible)
        output[:, :, own] = share @ value[:, None, seen]
        for head in range(heads):
            old = np.flatnonzero(kept[head, :start])
            if len(old) > size:
                scores = np.pad(share[head].sum(axis=(0, 1))[old], POOLED // 2)
                pooled = np.lib.stride_tricks.sliding_window_view(scores, POOLED).max(axis=-1)
                kept[head, old[np.argsort(-pooled, kind="stable")[size:]]] = False
    return output.reshape(*query.shape[:-1], -1)


def in_groups(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The queries of each key head: (key heads, group, n, d)."""
    return query.reshape(key.shape[0], -1, *query.shape[1:])


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
