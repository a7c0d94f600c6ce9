"""Inputs for the tests of compressed attention: smooth heads, and the edge cases of one."""

import numpy as np


def smooth(rng, *shape, size=1.0):
    """Points along a curve with noise, as queries and keys of trained models are: (*lead, n, d)."""
    *lead, length, dim = shape
    basis = rng.standard_normal((*lead, 3, dim))
    return size * (rng.standard_normal((*lead, length, 3)) @ basis / np.sqrt(3) + 0.1 * rng.standard_normal(shape))


def head(rng, length=150, num_keys=None, dim=8, value_dim=5, lead=(), size=1.0):
    """query (*lead, L, d), key (*lead, S, d), value (*lead, S, dv)."""
    num_keys = length if num_keys is None else num_keys
    return (
        smooth(rng, *lead, length, dim, size=size),
        smooth(rng, *lead, num_keys, dim, size=size),
        rng.standard_normal((*lead, num_keys, value_dim)),
    )


def edge_cases(rng):
    """Heads by name: what goes wrong first in a clustering."""
    query, key, value = head(rng)
    zero = np.zeros_like
    return {
        "plain": (query, key, value),
        "one query": (query[:1], key, value),
        "one key": (query, key[:1], value[:1]),
        "few queries": (query[:5], key, value),
        "equal keys": (query, zero(key) + key[:1], value),
        "repeated keys": (query, np.repeat(key[:75], 2, 0), np.repeat(value[:75], 2, 0)),
        "two queries": (np.repeat(query[:2], 75, 0), key, value),
        "zero": (zero(query), zero(key), value),
        "constant values": (query, key, zero(value) + 3.0),
        "one dimension": (query[:, :1], key[:, :1], value[:, :1]),
        "rank one": (query[:, :1] * np.ones(8), key[:, :1] * np.ones(8), value),
        "logits of 100": (10 * query, 10 * key, value),
        "logits of 10000": (100 * query, 100 * key, value),
        "logits of 1e-10": (1e-5 * query, 1e-5 * key, value),
    }
