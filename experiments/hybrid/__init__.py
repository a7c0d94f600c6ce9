"""hybrid: what mixing two estimators by the angle gains, and what knowing clusters gains.

`table`: relative root-mean-square errors times √m of trigonometric, positive, hyperbolic and angular hybrid features (8
signs) for inputs of equal length r, from closed forms. `angles`: the same at equal feature dimension over all angles,
with Monte Carlo wherever its tails can be trusted.

`clusters`: queries and keys in two clusters each, queries of length 0.1 and keys of length 1, d = 50. Complex
exponential features with a fitted diagonal have next to no variance at one pair of centers. One such map for each pair
of clusters, each used on its own block of the matrix, is a feature map of four times the width (the blocks that are not
its own are zero). The mean squared relative error over all pairs, at equal feature dimension, closed forms and draws.
"""

from experiments.experiment import Experiment
from experiments.hybrid.figures import plot
from experiments.hybrid.measure import HybridSettings, cells
from experiments.hybrid.verdicts import summaries, verdicts

EXPERIMENT = Experiment(
    name="hybrid",
    claim="At equal width the angular hybrid is the best estimator at no angle; knowing clusters does help.",
    settings=HybridSettings(),
    quick=HybridSettings(
        lengths=(1.0,),
        num_angles=9,
        num_draws=400,
        cluster_size=30,
        cluster_draws=100,
        cluster_widths=(160,),
        spreads=(0.1, 1.0),
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
