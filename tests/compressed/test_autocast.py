"""Under `torch.autocast`, compressed attention keeps the precision of its inputs."""

import numpy as np
import pytest

import randfeat as rf
from tests.compressed.heads import head

torch = pytest.importorskip("torch", reason="pip install '.[frameworks]'")


def clustered(query, key, value):
    return rf.clustered_attention(query, key, value)


def causal(query, key, value):
    return rf.compressed_attention(query, key, value, num_keys=12, window=8, is_causal=True)


def cached(query, key, value):
    return rf.compress(key, value, num_keys=12, queries=query).read(query).normalized()


def routed(query, key, value):
    return rf.QueryClusters.fit(query, key, num_clusters=4).compress(key, value).read(query).normalized()


def audited(query, key, value):
    return torch.from_numpy(rf.output_error(query, key, value, value).error)


@pytest.mark.parametrize("records", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("function", [clustered, causal, cached, routed, audited])
def test_autocast_changes_nothing(rng, function, records):
    arrays = [torch.from_numpy(x.astype(np.float32)).requires_grad_(records) for x in head(rng, 200, lead=(2,))]
    expected = function(*arrays)
    with torch.autocast("cpu", torch.bfloat16):
        found = function(*arrays)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
