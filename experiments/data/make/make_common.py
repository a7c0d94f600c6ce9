# mypy: ignore-errors
"""What the make_*.py scripts share: exact attention, the layout of a *_qkv.npz file, Debian's R data files."""

import bz2
import json
import lzma
import zlib

import numpy as np

from experiments.minilm import softmax_attention


def exact_attention(q, k, v, causal=False):
    """Exact softmax attention in float64, scale 1/√d: the output (n, dv) and the weights (n, s)."""
    q, k, v = (np.asarray(t, dtype=np.float64) for t in (q, k, v))
    logits = q @ k.T / np.sqrt(q.shape[1])
    if causal:
        logits = np.where(np.tri(*logits.shape, dtype=bool), logits, -np.inf)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return p @ v, p


def head_stats(q, k, p):
    """Norms, range of all logits (masked ones too), mean row entropy in nats, mean largest probability."""
    q, k = q.astype(np.float64), k.astype(np.float64)
    logits = q @ k.T / np.sqrt(q.shape[1])
    qn, kn = np.linalg.norm(q, axis=1), np.linalg.norm(k, axis=1)
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)
    return dict(
        qnorm_mean=qn.mean(), qnorm_max=qn.max(), knorm_mean=kn.mean(), knorm_max=kn.max(),
        logit_min=logits.min(), logit_max=logits.max(), entropy_mean=entropy.mean(), pmax_mean=p.max(-1).mean(),
    )  # fmt: skip


class Recorder:
    """Softmax attention that remembers the q, k, v of every call."""

    def __init__(self):
        self.calls = []

    def __call__(self, q, k, v):
        self.calls.append((q, k, v))
        return softmax_attention(q, k, v)


class QKV:
    """Collects heads as KEY/q, KEY/k, KEY/v (float32, not scaled) and KEY/out; one json entry each in `meta`."""

    def __init__(self, model, out_dtype="float64", **meta):
        self.arrays = {}
        self.meta = dict(model=model, scale="1/sqrt(d)", out_dtype=out_dtype, **meta, entries=[])

    def put(self, key, q, k, v, causal=False):
        out, p = exact_attention(q, k, v, causal)
        for name, array in (("q", q), ("k", k), ("v", v)):
            self.arrays[f"{key}/{name}"] = np.ascontiguousarray(array, dtype=np.float32)
        self.arrays[f"{key}/out"] = out.astype(self.meta["out_dtype"])
        stats = {name: round(float(value), 4) for name, value in head_stats(q, k, p).items()}
        entry = dict(key=key, L=len(q), S=len(k), d=q.shape[1], causal=causal, **stats)
        self.meta["entries"].append(entry)
        print("| {key} | {L} | {S} | {logit_min:.1f} .. {logit_max:.1f} | {entropy_mean:.2f} |".format(**entry))

    def save(self, path):
        np.savez_compressed(path, **self.arrays, meta=np.array(json.dumps(self.meta)))


def parse_head(name):
    """'L3H7' -> (3, 7)."""
    layer, head = name.removeprefix("L").split("H")
    return int(layer), int(head)


def read_r_lazydb(stem):
    """An R lazy-load database (stem.rdx, stem.rdb) -> {name: serialised object}. Needs `pip install rdata==1.1.0`."""
    import rdata

    with open(stem + ".rdx", "rb") as file:
        raw = file.read()
    try:
        raw = zlib.decompress(raw)  # a plain zlib stream; rdata detects the other compressions itself
    except zlib.error:
        pass
    index = rdata.conversion.convert(rdata.parser.parse_data(raw))
    with open(stem + ".rdb", "rb") as file:
        blob = file.read()
    objects = {}
    for name, (offset, length) in index["variables"].items():
        body = blob[int(offset) + 4 : int(offset) + int(length)]  # 4 bytes: the uncompressed size
        if body[:1] == b"2":
            objects[name] = bz2.decompress(body[1:])
        elif body[:1] == b"Z":
            lzma2 = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
            objects[name] = lzma.decompress(body[1:], format=lzma.FORMAT_RAW, filters=lzma2)
        elif body[:1] == b"0":
            objects[name] = body[1:]
        else:
            objects[name] = zlib.decompress(body)
    return objects


def read_r_object(stem, name):
    import rdata

    return rdata.conversion.convert(rdata.parser.parse_data(read_r_lazydb(stem)[name]))


def austen(stem, novel):
    """The text of a novel in Debian's r-cran-janeaustenr (site-library/janeaustenr/data/Rdata)."""
    return "\n".join("" if line is None else str(line) for line in read_r_object(stem, novel))
