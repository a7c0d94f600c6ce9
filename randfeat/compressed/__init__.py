"""Compressed attention: key caches, clustered attention, and the error of an output."""

from randfeat.compressed.audit import OutputError, output_error
from randfeat.compressed.cache import KeyCache, compress
from randfeat.compressed.clustered import clustered_attention
from randfeat.compressed.compressed import compressed_attention
from randfeat.compressed.query_clusters import QueryClusters
from randfeat.compressed.state import CompressedState

__all__ = [
    "CompressedState",
    "KeyCache",
    "OutputError",
    "QueryClusters",
    "clustered_attention",
    "compress",
    "compressed_attention",
    "output_error",
]
