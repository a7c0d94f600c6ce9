"""uniform_convergence: how many Fourier features make all errors small at once, against the bounds.

Median and extremes over draws of the largest error: `tokens` over an attention matrix exp(q·k/√d), |q|, |k| = d^{1/4};
`ball` over a unit ball, by gradient ascent; `sup` over discs of growing diameter, next to the error at which each bound
is 1/2; `spectral` for kernel ridge regression. The rows needed for an error ε are (error/ε)² m.
"""

from experiments.experiment import Experiment
from experiments.uniform_convergence.figures import plot
from experiments.uniform_convergence.measure import UniformSettings, cells
from experiments.uniform_convergence.verdicts import summaries, verdicts

EXPERIMENT = Experiment(
    name="uniform_convergence",
    claim="The features that make all entries accurate at once do not depend on the number of tokens.",
    settings=UniformSettings(),
    quick=UniformSettings(
        tokens=(32, 128, 512),
        token_rows=(64, 256),
        ball_dims=(2, 16, 64),
        ball_rows=1024,
        diameters=(1.0, 4.0, 16.0),
        sup_rows=(64, 256, 1024),
        num_draws=6,
        num_points=100,
        ridge=4.0,
        spectral_rows=(256, 1024, 4096),
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
