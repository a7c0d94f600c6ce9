"""Whether two checkouts of the library give the same numbers, bit for bit, on NumPy arrays.

    python -m experiments.benchmarks.same_numbers OTHER_CHECKOUT [--this CHECKOUT] [--calls 200] [--rng 0]

Each checkout computes the same cases in a process of its own: the catalogue, with every coupling and kernel, and random
calls of attention. The cases use public names only, so that modules may have moved between the two.
"""
