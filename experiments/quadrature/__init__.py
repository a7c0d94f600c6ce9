"""quadrature: rules that integrate polynomials exactly, as features for Gaussian and arc-cosine kernels.

m counts rows. Trigonometric features of the Gaussian kernel do not tell w from -w; there the spherical-radial rule
stands without its mirror images: the same estimate from half the features, and beside it the rule of degree (3, 3) with
a random radius and a weight at the origin, which no feature map can carry.
"""

from experiments.experiment import Experiment
from experiments.quadrature.figures import plot
from experiments.quadrature.measure import QuadratureSettings, cells
from experiments.quadrature.verdicts import summaries, verdicts

EXPERIMENT = Experiment(
    name="quadrature",
    claim="The spherical-radial rule beats independent rows for arc-cosine kernels; for the Gaussian one it is biased.",
    settings=QuadratureSettings(),
    quick=QuadratureSettings(
        num_points=50, multiples=(1, 4), num_draws=60, ridge_points=(600, 300), ridge_widths=(64, 256), ridge_draws=5
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
