"""`python -m experiments`."""

import os
import sys

if not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(os.environ):
    # The matrices here are small: more threads gain little, and lose much on a machine that is busy. Read by the
    # libraries when they are imported, so this comes first.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

try:
    from experiments.command_line import main

    code = main()
except KeyboardInterrupt:  # while the libraries are imported
    print("experiments: interrupted.", file=sys.stderr)
    code = 130
sys.exit(code)
