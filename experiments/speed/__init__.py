"""speed: time and memory of one attention layer against the length.

After Figure 3 of Choromanski et al. 2021, "Rethinking Attention with Performers", on one layer: exact attention, linear
attention, full and causal, and the layer whose attention returns its values, the least that a layer can take.

Timings are no function of the settings. A cell measures all methods at all lengths interleaved, so each cell is a whole
comparison of its own; what is stored is what was measured, and a run that goes on adds other cells, from other minutes.
Slopes are fitted within cells. Run it with one worker: cells that run at once disturb each other.
"""

from experiments.experiment import Experiment
from experiments.speed.figures import plot
from experiments.speed.measure import SpeedSettings, cells
from experiments.speed.verdicts import summaries, verdicts

EXPERIMENT = Experiment(
    name="speed",
    claim="Linear attention takes time and memory linear in the length, forward and backward; exact, quadratic time.",
    settings=SpeedSettings(),
    quick=SpeedSettings(
        lengths=tuple(2**k for k in range(8, 14)),
        longest_exact=2**12,
        longest_whole=2**11,
        num_features=(64,),
        num_cells=1,
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    backends=("numpy", "torch", "jax", "cupy"),
)
