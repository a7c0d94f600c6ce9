# mypy: ignore-errors
"""Attention inputs of the protein model AntiBERTy (8 layers, 8 heads, d = 64, bidirectional).

    pip install --no-deps antiberty==0.1.3          # 1.0.0 carries no weights
    pip install numpy torch                         # torch only opens the checkpoint
    apt-get download mmseqs2-examples ; dpkg -x mmseqs2-examples_*.deb DIR
    python make_antiberty_qkv.py --out antiberty_qkv.npz \
        --fasta DIR/usr/share/doc/mmseqs2/example-data/DB.fasta.gz \
        --model SITE-PACKAGES/antiberty/trained_models/AntiBERTy_md_smooth/pytorch_model.bin

Proteins: the heavy variable domain of trastuzumab (120 residues; PDB 1N8Z, chain B) and one TrEMBL entry.
Prints how many residues of the antibody the model recovers when they are masked one at a time.
"""

import argparse
import gzip

import numpy as np
from make_common import QKV, Recorder, parse_head

from experiments.minilm import Bert, gelu, layer_norm

TRASTUZUMAB_VH = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAM"
    "DYWGQGTLVTVSS"
)
VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] A C D E F G H I K L M N P Q R S T V W Y".split()


def encode(sequence):
    return np.array([2] + [VOCABULARY.index(residue) for residue in sequence] + [3])


def read_fasta(path, accession):
    for record in gzip.open(path, "rt").read().split(">")[1:]:
        header, *lines = record.split("\n")
        if header.split("|")[1] == accession:
            return "".join(lines)
    raise KeyError(accession)


def masked_accuracy(weights, head, ids):
    """Share of residues that the model names right when each one is masked in turn."""
    positions = range(1, len(ids) - 1)
    right = 0
    for i in positions:
        masked = ids.copy()
        masked[i] = VOCABULARY.index("[MASK]")
        x = Bert(weights, 8, 8).run(masked)[i]
        x = gelu(x @ head["transform.dense.weight"].T + head["transform.dense.bias"])
        x = layer_norm(x, head["transform.LayerNorm.weight"], head["transform.LayerNorm.bias"])
        right += int(np.argmax(head["decoder.weight"] @ x + head["decoder.bias"]) == ids[i])
    return right / len(positions)


def main():
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--fasta", required=True)
    parser.add_argument("--accession", default="N1NWK3", help="N1NWK3 is the yeast GTPase Ras1p")
    parser.add_argument("--antibody-heads", default="L1H2 L5H0")
    parser.add_argument("--protein-heads", default="L2H1 L6H5")
    parser.add_argument("--out", default="antiberty_qkv.npz")
    args = parser.parse_args()

    tensors = {name: t.numpy() for name, t in torch.load(args.model, map_location="cpu", weights_only=True).items()}
    weights = {name.removeprefix("bert."): t for name, t in tensors.items()}
    head = {name.removeprefix("cls.predictions."): t for name, t in tensors.items()}
    proteins = {
        "trastuzumab_vh": (TRASTUZUMAB_VH, args.antibody_heads),
        f"trembl_{args.accession}": (read_fasta(args.fasta, args.accession), args.protein_heads),
    }
    print("masked residues recovered:", masked_accuracy(weights, head, encode(TRASTUZUMAB_VH)))
    store = QKV("AntiBERTy (PyPI antiberty==0.1.3, MIT)", causal=False)
    for key, (sequence, heads) in proteins.items():
        ids = encode(sequence)
        recorder = Recorder()
        Bert(weights, 8, 8).run(ids, recorder)
        store.arrays[f"{key}/input_ids"] = ids.astype(np.int32)
        for name in heads.split():
            layer, h = parse_head(name)
            store.put(f"{key}/{name}", *(t[h] for t in recorder.calls[layer]))
    store.save(args.out)


if __name__ == "__main__":
    main()
