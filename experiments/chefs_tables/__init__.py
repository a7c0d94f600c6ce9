"""chefs_tables: how many orders of magnitude better exponential features reduce the variance, from closed forms.

The mean over pairs of the logarithm of the relative variance of one independent row, against the scale σ of the inputs,
d = 64, as in "Chefs' Random Tables" and "FAVOR#". Regimes: normal inputs; inputs on the sphere of radius
σ√d; queries and keys with opposite spreads along the axes; heads of trained models at σ² times their temperature. Only
closed forms: at these variances no sample would show them. Parameters are optimal for the very pairs of the mean.

`classification` is Nadaraya-Watson classification with the same estimators, argmax_c Σ_j K̂(x, x_j) [y_j = c], where
the bandwidth is chosen for the exact Gaussian kernel.
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
