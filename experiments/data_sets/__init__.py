"""data_sets: ridge regression on random features against pipelines of scikit-learn, on ten tables that packages ship.

Every contender gets the same rows and the same gamma, 1/columns, and chooses its penalty. Differences are taken split
by split.
"""

from experiments.data_sets.figures import plot
from experiments.data_sets.measure import cells
from experiments.data_sets.settings import DataSetsSettings
from experiments.data_sets.verdicts import summaries, verdicts
from experiments.experiment import Experiment

EXPERIMENT = Experiment(
    name="data_sets",
    claim="Out of the box, ridge regression on random features errs no more than RBFSampler with a tuned penalty.",
    settings=DataSetsSettings(),
    quick=DataSetsSettings(datasets=("wine", "diabetes", "star98"), widths=(64,), most_rows=200, num_splits=3),
    full=DataSetsSettings(most_rows=4000),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    captions={"data_sets": "Error of three pipelines of scikit-learn less ours, with two standard errors"},
    requires=("statsmodels",),
)
