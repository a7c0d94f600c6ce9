"""plot_features: which features carry a head."""

from typing import Any

import numpy as np

from randfeat._hints import hinted
from randfeat.maps import FeatureMap
from randfeat.plotting.axes import COLORS, axes_of
from randfeat.selection.diagnostics import feature_shares


@hinted
def plot_features(
    query: Any,
    key: Any,
    features: FeatureMap,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    key_mask: Any = None,
    ax: Any = None,
) -> Any:
    """Draw how the denominators of linear attention are shared among the features, and return the axes.

    The arguments are those of `attention_diagnostics`. For one query, the share of a feature is the part of the
    denominator that it contributes. Shares are sorted, largest first, and summed up: the line is the mean over queries,
    the band holds the middle 80 % of them. A line that rises at once means that few features decide, so that the error
    is large however many features are drawn; the dotted diagonal is equal shares.

    >>> import numpy as np, randfeat as rf
    >>> q, k = np.random.default_rng(0).standard_normal((2, 100, 16))
    >>> phi = rf.PositiveFeatures().draw(dim=16, num_features=64, rng=0)
    >>> from matplotlib.figure import Figure
    >>> ax = plot_features(q, k, phi, ax=Figure().subplots())
    >>> ax.get_ylabel()
    'share of the denominator'
    """
    shares = feature_shares(query, key, features, is_causal=is_causal, scale=scale, key_mask=key_mask)
    ax = axes_of(ax)
    shares = shares.reshape(-1, shares.shape[-1])
    cumulated = np.cumsum(np.sort(shares, axis=-1)[:, ::-1], axis=-1)
    cumulated = cumulated[cumulated[:, -1] > 0]  # queries that see a key
    ranks = np.arange(1, shares.shape[-1] + 1)
    if len(cumulated):
        low, high = np.quantile(cumulated, [0.1, 0.9], axis=0)
        ax.fill_between(ranks, low, high, color=COLORS[0], alpha=0.2, linewidth=0, label="80 % of the queries")
        ax.plot(ranks, cumulated.mean(axis=0), color=COLORS[0], linewidth=1.3, label="mean over queries")
    ax.plot(ranks, ranks / len(ranks), color="#777777", linestyle=":", linewidth=1, label="equal shares")
    ax.set_xlabel("features, largest share first")
    ax.set_ylabel("share of the denominator")
    ax.set_ylim(0, 1.02)
    ax.legend(frameon=False)
    return ax
