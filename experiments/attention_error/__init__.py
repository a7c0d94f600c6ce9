"""attention_error: how far random-feature attention is from exact attention on heads of trained models.

The relative Frobenius error of the output of linear attention, against exact attention in float64, on 22 heads of four
models (`experiments/data`), for positive, hyperbolic and trigonometric features under every coupling. Beside it two
lines that need no features: the average of the values (the running average for causal heads), which every method has
to beat to be of use, and the prediction of the delta method, drawn where it is below 0.5.

Left out: antithetic rows under hyperbolic and trigonometric features. Those are even in w, so that the rows w and -w
are one row counted twice: the errors are those of half the features. Positive features with antithetic rows *are*
hyperbolic features, feature by feature, so these pairs of curves agree up to chance.

Errors are medians over independent draws, with 95 % intervals of the median from order statistics, which assume nothing
about the law of the errors (trigonometric denominators vanish: means do not exist). Curves over several heads take the
median over heads within each draw, then the same interval over draws.

The delta method is tested where it is valid: heads whose logits are multiplied by a factor, far below 1, so that the
kernel's relative variance along an attention row is small (table `softened`).
"""

from experiments.attention_error.figures import plot
from experiments.attention_error.measure import cells
from experiments.attention_error.settings import AttentionErrorSettings
from experiments.attention_error.verdicts import summaries, verdicts
from experiments.experiment import Experiment

EXPERIMENT = Experiment(
    name="attention_error",
    claim="Random-feature attention on 22 heads of trained models: error of the output by estimator and coupling, "
    "against the average of the values and the delta method.",
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
