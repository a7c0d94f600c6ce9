"""kernel_mse: the mean squared error of every estimator under every coupling, measured and in closed form.

Random pairs at several |x + y|² (positive, hyperbolic) or |x - y|² (trigonometric) in d = 16; the relative MSE,
`E[(K̂/K - 1)²]`, against the number of features. Points are Monte Carlo over independent feature maps with two standard
errors, lines are `estimator.mse`. Constant norms are biased, and their closed form says so: it is variance plus squared
bias, and does not fall to zero.

Beyond |x + y|² of about 3 an empirical MSE of positive features is falsely low. There the variance is measured by
`montecarlo.gram_variance`, which takes the mean over rotations exactly; at d = 64 the lengths that remain random have
light tails (at d = 16 and |x + y|² = 8 not yet).
"""

from experiments.experiment import Experiment
from experiments.kernel_mse.figures import plot
from experiments.kernel_mse.measure import KernelMseSettings, cells
from experiments.kernel_mse.verdicts import summaries, verdicts

EXPERIMENT = Experiment(
    name="kernel_mse",
    claim="The measured mean squared error of every estimator under every coupling is its closed form.",
    settings=KernelMseSettings(),
    quick=KernelMseSettings(num_features=(32, 128), num_draws=2000, large_num_features=(16,), large_draws=1500),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
