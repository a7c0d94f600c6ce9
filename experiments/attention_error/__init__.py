"""attention_error: how far random-feature attention is from exact attention on heads of trained models.

Relative Frobenius errors of the output on 22 heads under every estimator and coupling, beside two lines that need no
features: the average of the values, and the delta method, which is tested on heads with softened logits. Errors are
medians over draws, with intervals from order statistics: trigonometric denominators vanish, and means do not exist.
"""

from experiments.attention_error.figures import plot
from experiments.attention_error.measure import cells
from experiments.attention_error.settings import AttentionErrorSettings
from experiments.attention_error.verdicts import summaries, verdicts
from experiments.experiment import Experiment

EXPERIMENT = Experiment(
    name="attention_error",
    claim="Random-feature attention on 22 trained heads, against exact attention and the average of the values.",
    settings=AttentionErrorSettings(),
    quick=AttentionErrorSettings(
        heads=(
            "minilm/mansfieldpark_ch1/L0H8",
            "minilm/sensesensibility_ch10/L4H3",
            "whisper/decoder_causal/L1H1",
            "vit/flower/L3H4",
            "antiberty/trembl_N1NWK3/L6H5",
        ),
        couplings=("independent", "orthogonal", "antithetic"),
        num_features=(32, 128, 512),
        num_draws=6,
        softened_draws=24,
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    backends=("numpy", "torch", "jax"),
)
