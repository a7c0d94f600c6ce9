"""language_model: a small causal language model whose attention is replaced without training.

A model of characters with grouped queries reads documents of 2048 characters, with merged keys, evicted keys or random
features of bounded memory in place of exact attention. Beside it: small models trained with the module for PyTorch.
"""

from experiments.experiment import Experiment
from experiments.language_model.figures import plot
from experiments.language_model.measure import cells
from experiments.language_model.settings import ModelSettings, Training
from experiments.language_model.verdicts import summaries, verdicts

EXPERIMENT = Experiment(
    name="language_model",
    claim="In a causal language model merged keys lose less than evicted ones of equal memory, without training.",
    settings=ModelSettings(),
    quick=ModelSettings(
        training=Training(width=32, stages=((128, 8, 60),)),
        length=256,
        num_documents=3,
        memories=(48,),
        cut=32,
        small=Training(width=32, layers=1, stages=((64, 8, 60),)),
        num_features=64,
        repetitions=2,
        held_out=16,
    ),
    cells=cells,
    verdicts=verdicts,
    summaries=summaries,
    plot=plot,
    captions={"language_model": "What a language model loses when its attention is replaced without training"},
    requires=("torch",),
)
