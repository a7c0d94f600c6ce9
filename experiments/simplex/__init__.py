"""simplex: what rows that repel each other gain for positive features, and that trigonometric ones lose by it.

`table`: mean squared error over that of independent rows at equal numbers of rows m = d, closed forms, for every
coupling that has one; antithetic couplings have m/2 pairs. `errors`: the same ratio for m = d/4 .. 4 d at d = 64, with
SimRF+, which has no closed form: measured by Monte Carlo up to |x + y|² = 1, and beyond, where its tails would deceive,
by the Gram formula `montecarlo.gram_variance`, which takes the mean over rotations exactly.

`accuracies`: Nadaraya-Watson classification of real tables with positive features of the Gaussian kernel, at the
bandwidth that is best for the exact kernel and at one so wide that |x + y|² is about 1.
"""

from experiments.experiment import Experiment
from experiments.simplex.figures import plot
from experiments.simplex.measure import SimplexSettings, cells
from experiments.simplex.verdicts import summaries, verdicts

EXPERIMENT = Experiment(
    name="simplex",
    claim="Rows that point away from each other lower the error of positive features, most at small |x + y|².",
    settings=SimplexSettings(),
    quick=SimplexSettings(
        distances=(1.0, 4.0),
        num_rows=(16, 64, 128),
        num_draws=300,
        gram_draws=100,
        datasets=("wine", "letter"),
        multiples=(1, 4),
        classification_draws=60,
        most_points=1500,
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
)
