"""Heads of trained models in single and half precision: finite, inside the range of the values, at logits up to 282.

Half-precision inputs are computed in float32. Tolerance: a convex combination of S values leaves their range by S
rounding errors of the accumulator at most, and by half an ulp of the output dtype.
"""

import numpy as np
import pytest

import randfeat as rf
from experiments.heads import head_names, load_head, value_range


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("name", head_names())
def test_outputs_of_positive_features_stay_within_the_values(name, dtype):
    head = load_head(name)
    q, k, v = (array.astype(dtype) for array in (head.query, head.key, head.value))
    assert np.all(np.isfinite(np.concatenate([q, k])))
    low, high = value_range(head)
    largest = np.abs(head.value).max()
    slack = largest * (len(k) * np.finfo(np.float32).eps + 2 * np.finfo(dtype).eps)
    for estimator in (rf.PositiveFeatures(), rf.HyperbolicFeatures(), rf.adapt(q, k, level="dense")):
        phi = estimator.draw(head.dim, 64, rng=0, like=q)
        out = rf.linear_attention(q, k, v, phi, is_causal=head.is_causal)
        assert out.dtype == dtype
        assert np.all(np.isfinite(out))
        assert np.all((out >= low - slack) & (out <= high + slack))
