"""real_heads: how far adapted features and compressed attention carry trained heads, at equal cost.

Estimators are fitted to the head that they are used on, causal heads to the whole sequence, and refitted with another
seed for every draw, so the spread over draws is that of the whole procedure. Key caches and clusters are made for the
queries of the head, and for a random half of them to be read by the others.
"""

from experiments.experiment import Experiment
from experiments.real_heads.figures import plot
from experiments.real_heads.measure import SEEDS, RealHeadsSettings, cells, fitted
from experiments.real_heads.verdicts import summaries, verdicts

__all__ = ["EXPERIMENT", "SEEDS", "fitted"]

EXPERIMENT = Experiment(
    name="real_heads",
    claim="Features adapted to the data halve the error of FAVOR+ on heads of trained models, at equal width; merged "
    "keys and clusters of queries err by a fraction of that, at equal cost.",
    settings=RealHeadsSettings(),
    quick=RealHeadsSettings(
        heads=(
            "minilm/mansfieldpark_ch1/L0H8",
            "minilm/sensesensibility_ch10/L4H3",
            "whisper/encoder/L3H4",
            "vit/flower/L8H2",
            "antiberty/trembl_N1NWK3/L6H5",
        ),
        num_features=(64, 256),
        num_draws=3,
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    captions={
        "real_heads": "Relative error of the attention output against cost, median and quartiles of a model's heads"
    },
)
