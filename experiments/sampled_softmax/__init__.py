"""sampled_softmax: classes drawn in logarithmic time with probability proportional to a feature kernel.

The loss of a classifier with many classes is estimated from a few negatives, best drawn from the softmax itself.
Positive features make sums over classes that a binary tree keeps, so that a draw costs O(m log n) (Blanc & Rendle 2018;
Rawat et al. 2019). Classes are unit vectors in clusters, queries lie near their target class, and logits are τ h·w.
"""

from experiments.experiment import Experiment
from experiments.sampled_softmax.figures import plot
from experiments.sampled_softmax.measure import cells
from experiments.sampled_softmax.settings import SampledSoftmaxSettings
from experiments.sampled_softmax.verdicts import summaries, verdicts

EXPERIMENT = Experiment(
    name="sampled_softmax",
    claim="A tree of positive features draws classes in O(m log n), with less bias than uniform negatives.",
    settings=SampledSoftmaxSettings(),
    quick=SampledSoftmaxSettings(
        num_queries=16,
        taus=(0.5, 2.0, 8.0),
        num_maps=8,
        num_tested=2,
        num_draws=20_000,
        num_samples=300,
        speed_classes=(1024, 4096, 16384, 65536),
        speed_rounds=3,
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
