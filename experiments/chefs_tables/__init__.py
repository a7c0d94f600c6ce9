"""chefs_tables: the variance of exponential features with fitted parameters, and what it is worth to a classifier.

Mean logarithms of relative variances for pairs of several regimes; Nadaraya-Watson classification of real tables.
"""

from experiments.chefs_tables.figures import plot
from experiments.chefs_tables.measure import ChefsSettings, cells
from experiments.chefs_tables.verdicts import summaries, verdicts
from experiments.experiment import Experiment

EXPERIMENT = Experiment(
    name="chefs_tables",
    claim="Exponential features with fitted parameters reduce the variance by tens of powers of e for long inputs.",
    settings=ChefsSettings(),
    quick=ChefsSettings(
        scales=(0.1, 0.5, 1.0),
        num_pairs=512,
        heads=("minilm/mansfieldpark_ch1/L5H7", "vit/flower/L8H2"),
        datasets=("wine", "digits"),
        num_features=(32, 256),
        num_draws=10,
        most_points=1000,
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
