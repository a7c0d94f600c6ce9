# mypy: ignore-errors
"""letter.npz and ames.npz: two tables, for classification and for regression, from Debian packages.

    apt-get download r-cran-mlbench r-cran-modeldata ; dpkg -x each into DIR
    pip install numpy pandas rdata==1.1.0
    python make_tables.py --root DIR --out ..
"""

import argparse
from pathlib import Path

import numpy as np
from make_common import read_r_object


def letter(site):
    """20000 letters, 16 integer features 0..15, labels 0..25 for A..Z; the order of the UCI file."""
    import rdata

    table = rdata.read_rda(site / "mlbench/data/LetterRecognition.rda")["LetterRecognition"]
    labels = np.array([ord(c) - ord("A") for c in table["lettr"].astype(str)], np.uint8)
    features = table.drop(columns="lettr")
    return dict(X=features.to_numpy().astype(np.uint8), y=labels, columns=np.array(list(features.columns)))


def ames(site):
    """2930 house sales: the numeric columns (float32, not standardized) and log10 of the price in dollars."""
    table = read_r_object(str(site / "modeldata/data/Rdata"), "ames")
    features = table.select_dtypes("number").drop(columns="Sale_Price")
    price = np.log10(table["Sale_Price"].to_numpy(float))
    return dict(X=features.to_numpy(np.float32), y=price.astype(np.float32), columns=np.array(list(features.columns)))


parser = argparse.ArgumentParser()
parser.add_argument("--root", type=Path, required=True, help="where the Debian packages were unpacked")
parser.add_argument("--out", type=Path, default=Path("."))
args = parser.parse_args()

site = args.root / "usr/lib/R/site-library"
np.savez_compressed(args.out / "letter.npz", **letter(site))
np.savez_compressed(args.out / "ames.npz", **ames(site))
