"""Sizes of clustered and compressed attention on which their work depends; `randfeat.compressed` has them from here."""

NUM_CLUSTERS = 21  # of clustered attention, by default
NUM_KEYS = 64  # rows of a cache, and length of a chunk, by default
LEAST_REFERENCES = 32  # queries that a cache is made for
CLUSTERED = 32  # keys for each row that k-means sees
SWEEPS = 2  # of k-means after a k-means++ start; more of them change errors by 1 to 2 %
