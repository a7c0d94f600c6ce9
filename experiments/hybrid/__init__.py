"""hybrid: what mixing two estimators by the angle gains, and what knowing clusters gains.

Errors at equal feature dimension, in closed form and measured where the tails allow it: `table` and `angles` for inputs
of equal length, `clusters` for one complex exponential map for each pair of clusters.
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
