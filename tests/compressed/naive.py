"""Naive twins of compressed attention: one head in float64, key by key, straight from the formulas."""

import numpy as np


def attention(logits, values):
    """`softmax(logits) values`."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights @ values / weights.sum(axis=-1, keepdims=True)


def clustered(query, key, value, clusters, num_exact, *, second_order=False):
    """Clustered attention of queries and keys times √scale, with the clusters of one head."""
    outputs = np.empty((len(query), value.shape[1]))
    labels = [
        int(np.argmin([np.sum(((y - clusters.key_mean) @ clusters.key_root - e) ** 2) for e in clusters.key_centers]))
        for y in key
    ]
    for i, x in enumerate(query):
        own = int(np.argmin([np.sum((x @ clusters.query_root - e) ** 2) for e in clusters.query_centers]))
        center = clusters.centers[own]
        at_center = key @ center
        near = set(np.argsort(-at_center, kind="stable")[:num_exact].tolist())
        logits, rows = [x @ key[j] for j in near], [value[j] for j in near]
        for label in set(labels):
            members = [j for j, own_label in enumerate(labels) if own_label == label and j not in near]
            if not members:
                continue
            top = max(at_center[j] for j in members)
            weights = np.array([np.exp(at_center[j] - top) for j in members])
            merged = weights @ key[members] / weights.sum()
            moved = x - center
            logit = moved @ merged + top + np.log(weights.sum())
            if second_order:
                spread = weights @ np.sum(((key[members] - merged) @ clusters.key_root) ** 2, axis=1) / weights.sum()
                logit += min(0.5 * spread / np.sum(clusters.key_root**2) * moved @ moved, 1.0)
            logits.append(logit)
            rows.append(weights @ value[members] / weights.sum())
        outputs[i] = attention(np.array(logits), np.array(rows))
    return outputs


def relative(found, exact):
    """`‖found - exact‖ / ‖exact‖` over everything."""
    return np.linalg.norm(np.asarray(found) - exact) / np.linalg.norm(exact)
