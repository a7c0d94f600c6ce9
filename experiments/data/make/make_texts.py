# mypy: ignore-errors
"""austen_mansfieldpark.txt.gz and trembl_1000.fasta.gz from Debian packages.

    apt-get download r-cran-janeaustenr mmseqs2-examples ; dpkg -x each into DIR
    pip install numpy rdata==1.1.0
    python make_texts.py --root DIR --out .
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from make_common import austen

SEED = 12  # of the draw of TrEMBL entries


def trembl(path, count):
    """`count` entries drawn at random without replacement, headers and sequences unchanged, in the order of the file."""
    records = ("\n" + gzip.open(path, "rt").read()).split("\n>tr|")[1:]
    records = [record.split("\n>")[0].strip() for record in records]
    chosen = np.random.default_rng(SEED).choice(len(records), count, replace=False)
    return "".join(f">tr|{records[i]}\n" for i in sorted(chosen))


parser = argparse.ArgumentParser()
parser.add_argument("--root", type=Path, required=True, help="where the Debian packages were unpacked")
parser.add_argument("--out", type=Path, default=Path("."))
args = parser.parse_args()

texts = {
    "austen_mansfieldpark.txt.gz": austen(
        str(args.root / "usr/lib/R/site-library/janeaustenr/data/Rdata"), "mansfieldpark"
    ),
    "trembl_1000.fasta.gz": trembl(args.root / "usr/share/doc/mmseqs2/example-data/DB.fasta.gz", 1000),
}
for name, text in texts.items():
    (args.out / name).write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0))
