"""register: linear attention under a name that `attn_implementation` takes; and models that are saved with it."""

import os
from collections.abc import Mapping
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from randfeat.estimators.base import Estimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.masks import padding_mask
from randfeat.integrations.transformers.storing import FILE, digest, set_mark
from randfeat.storage import load, save

Path = str | os.PathLike[str]


def register(
    estimator: Estimator | Mapping[int, Estimator] | Path | None = None,
    num_features: int | None = None,
    *,
    rng: int | None = None,
    name: str = "randfeat",
    **options: Any,
) -> ModelAttention:
    """Register linear attention with transformers, for `from_pretrained(..., attn_implementation=name)`.

    estimator : one for all layers; or a mapping from layer numbers to estimators, as `calibrate` returns it;
        `PositiveFeatures` with orthogonal rows by default. Or the folder of a model that `save_pretrained` saved, or
        its file, which has all of these arguments; others that are given here take precedence.
    num_features : length of the features, 256 by default.
    rng : seed, an int, 0 by default. Layer i draws one map for each head from (seed, i), or for each key head that was
        calibrated: the same maps in every process.
    name : name of the implementation; a second call with the same name replaces the first.
    options : keywords of `randfeat.linear_attention` for every layer, if they do not depend on the input: `decay`, a
        number or one for each head; `window`, with exact weights inside and estimated ones outside; `method`.

    Padding, causal models, additive masks of keys, grouped heads, packed sequences and queries after a cache, one or
    several, work. Dropout of a model in training is that of the outputs, not of single weights. Sliding windows that
    are shorter than the text, masks and biases of pairs, bounds of logits (softcap), sinks and other arguments that
    change the outputs raise an error, as they have no linear-time form here. For a model that is already loaded, use
    `model.set_attn_implementation(name)`.
    """
    given: dict[str, Any] = {"num_features": num_features, "rng": rng, "options": options}
    stored: dict[str, Any] = {"num_features": 256, "rng": 0, "options": {}}
    if isinstance(estimator, str | os.PathLike):
        stored |= description_in(estimator)
    else:
        stored["estimator"] = PositiveFeatures() if estimator is None else estimator
    chosen = stored | {name: value for name, value in given.items() if value is not None and value != {}}
    attention = ModelAttention(**chosen)
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, padding_mask)
    return attention


def description_in(path: Path) -> dict[str, Any]:
    """The arguments of `ModelAttention` from a file, or from the folder that it is in."""
    path = os.fspath(path)
    file = os.path.join(path, FILE) if os.path.isdir(path) else path
    if not os.path.exists(file):
        raise FileNotFoundError(
            f"there is no {file!r}: save a model with its attention by "
            "randfeat.integrations.transformers.save_pretrained(model, folder)."
        )
    stored = load(file)
    if isinstance(stored, dict) and "estimator" in stored:
        return stored
    return {"estimator": stored}


def save_pretrained(model: PreTrainedModel, save_directory: Path, **options: Any) -> None:
    """`model.save_pretrained(save_directory, **options)`, and the attention that it runs with in a file beside.

    The file, `randfeat.npz`, has the estimators of all layers, the number of features, the seed and the options. In
    another process, `register(save_directory)` registers the same attention, and then `from_pretrained` with
    `attn_implementation` gives a model with the same outputs, to the bit. The config of the model is marked: until the
    attention is registered, the model raises an error that says so.
    """
    name = model.config._attn_implementation
    attention = AttentionInterface().get(name)
    if not isinstance(attention, ModelAttention):
        raise ValueError(
            f"this model runs with attn_implementation={name!r}, which is not of randfeat: call register and "
            "model.set_attn_implementation first."
        )
    set_mark(model, digest(attention.description))
    model.save_pretrained(save_directory, **options)
    save(os.path.join(os.fspath(save_directory), FILE), attention.description)
