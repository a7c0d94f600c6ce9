"""simplex: what rows that repel each other gain for positive features, and that trigonometric ones lose by it.

`table`: closed forms at m = d rows (antithetic couplings have m/2 pairs). `errors`: with SimRF+, which has no closed
form, by Monte Carlo up to |x + y|² = 1 and by the Gram formula beyond, where tails would deceive. `accuracies`:
Nadaraya-Watson classification, at the best bandwidth and at one so wide that |x + y|² is about 1.
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
