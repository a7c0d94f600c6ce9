"""kernel_mse: the mean squared error of every estimator under every coupling, measured and in closed form.

Beyond |x + y|² of about 3 an empirical error of positive features is falsely low; there `montecarlo.gram_variance`,
which takes the mean over rotations exactly, measures the variance, at d = 64 where the lengths have light tails.
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
