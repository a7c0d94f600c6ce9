"""register: linear attention under a name that `attn_implementation` takes; and models that are saved with it."""

import os
from collections.abc import Mapping
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from randfeat.estimators.base import Estimator
from randfeat.estimators.positive import PositiveFeatures
from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.features import EXACT_UP_TO, FeatureAttention, why_not_softmax
from randfeat.integrations.transformers.masks import padding_mask
from randfeat.integrations.transformers.merged import ClusteredAttention, CompressedAttention
from randfeat.integrations.transformers.storing import FILE, digest, known_width, set_mark
from randfeat.storage import load, save

Path = str | os.PathLike[str]


def register(
    estimator: Estimator | Mapping[int, Estimator] | Path | None = None,
    num_features: int | None = None,
    *,
    method: str | None = None,
    exact_up_to: int | None = None,
    rng: int | None = None,
    share_maps: bool | None = None,
    name: str = "randfeat",
    **options: Any,
) -> ModelAttention:
    """Register an attention of randfeat with transformers, for `from_pretrained(..., attn_implementation=name)`.

    estimator : one for all layers; or a mapping from layer numbers to estimators, as `calibrate` returns it;
        `PositiveFeatures` with orthogonal rows by default. Or the folder of a model that `save_pretrained` saved, or
        its file, which has all of these arguments; others that are given here take precedence.
    num_features : length of the features; by default the number that the estimators were calibrated for in this
        process, or else 256.
    method : "auto", the default: queries that see at most `exact_up_to` keys attend to them exactly, all others by
        features. "linear": features for all queries; this is also the default with `decay`, for features of another
        kernel than `SoftmaxKernel()`, and for files that were saved before there was this choice. "exact": the exact
        kernel for all queries. Or without features and without a calibration: "clustered",
        `randfeat.clustered_attention`, for encoders; "compressed", `randfeat.compressed_attention`, for encoders and
        decoders.
    exact_up_to : of "auto", 1024 by default, whatever the machine; 0 is the same as "linear". What counts are the keys
        that a query sees: all tokens of its text in an encoder, those up to its own in a causal layer. Padding does not
        count. So each token has the outputs that it has in its text alone, up to rounding: in batches, packed, in
        pieces, and with caches.
    rng : seed, an int, 0 by default. Layer i draws one map for each head from (seed, i), or for each key head that was
        calibrated: the same maps in every process.
    share_maps : if True, the query heads of a group have one map in common. A `StateCache` is then smaller by their
        number. False by default.
    name : name of the implementation; a second call with the same name replaces the first. All models that run under
        one name have the same features in layers of the same number and sizes.
    options : keywords of the operator for every layer. Of linear attention those that do not depend on the input:
        `decay`, a number or one for each head; `window`, with exact weights inside and estimated ones outside. Of
        "clustered": `num_clusters`, `num_exact`, `num_merged`, `accuracy`, `second_order`. Of "compressed": `num_keys`,
        `fit`, and for causal layers `window` and `num_sinks`.

    Padding, causal models, additive masks of keys, grouped heads, packed sequences and queries after a cache, one or
    several, work. Dropout of a model in training is that of single weights where "auto" is exact, and elsewhere that of
    the outputs. Sliding windows that are shorter than the text, masks and biases of pairs, bounds of logits (softcap),
    sinks and other arguments that change the outputs raise an error, as they have no linear-time form here. For a model
    that is already loaded, use `model.set_attn_implementation(name)`.

    "clustered" and "compressed" attend to each sequence alone, without its padding. Causal layers refuse "clustered":
    clusters are fitted to the whole sequence. With "compressed" they read a stream, with the sequence's own past as
    references; after a cache of transformers, which has all keys, they read them exactly; with a `CompressedCache` the
    stream goes on.
    """
    given: dict[str, Any] = {
        "method": method,
        "exact_up_to": exact_up_to,
        "num_features": num_features,
        "rng": rng,
        "share_maps": share_maps,
        "options": options,
    }
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None and value != {}}
    if isinstance(estimator, str | os.PathLike):
        stored = description_in(estimator)
        if method is not None and "exact_up_to" in stored:
            del stored["exact_up_to"]
        chosen = stored | chosen
    elif estimator is not None:
        chosen = {"estimator": estimator} | chosen
    attention = attention_with(**chosen)
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, padding_mask)
    return attention


WITHOUT_FEATURES = {kind.method: kind for kind in (ClusteredAttention, CompressedAttention)}


def attention_with(
    method: str | None = None, exact_up_to: int | None = None, rng: int = 0, options: Any = None, **features: Any
) -> ModelAttention:
    """The attention function for arguments of `register`, or from a file."""
    options = {} if options is None else dict(options)
    if method not in ("auto", None) and exact_up_to:
        raise ValueError(f'exact_up_to is an option of method="auto", got method={method!r}: leave one of them out.')
    if method in WITHOUT_FEATURES:
        if features:
            raise ValueError(f"method={method!r} has no features: leave out {' and '.join(features)}.")
        return WITHOUT_FEATURES[method](rng, options)
    if method is not None:
        if method not in ("linear", "exact", "auto"):
            raise ValueError(f'method must be "linear", "exact", "auto", "clustered" or "compressed", got {method!r}.')
        options.pop("method", None)
        if method == "exact":
            options["method"] = method
    if "num_features" not in features and isinstance(features.get("estimator"), Mapping):
        features["num_features"] = known_width(features["estimator"])
    if exact_up_to is None:
        is_softmax = why_not_softmax(features.get("estimator", PositiveFeatures()), options) is None
        exact_up_to = EXACT_UP_TO if method == "auto" or (method is None and is_softmax) else 0
    return FeatureAttention(rng, options, exact_up_to=exact_up_to, **features)


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
    if not isinstance(stored, dict) or not ("estimator" in stored or "method" in stored):
        return {"estimator": stored}
    before = {"exact_up_to": 0} if "estimator" in stored else {}  # features for all queries, where it is not stored
    return before | {name: value for name, value in stored.items() if name != "kernel"}


def save_pretrained(model: PreTrainedModel, save_directory: Path, **options: Any) -> None:
    """`model.save_pretrained(save_directory, **options)`, and the attention that it runs with in a file beside.

    The file, `randfeat.npz`, has the method, the estimators of all layers, the number of features, the seed and the
    options. In another process, `register(save_directory)` registers the same attention, and then `from_pretrained`
    gives a model with the same outputs, to the bit. The saved config names the implementation and is marked. So
    `from_pretrained` without a registration is an error, and so is a call of the model with another registration.
    """
    name = model.config._attn_implementation
    attention = AttentionInterface().get(name)
    if not isinstance(attention, ModelAttention):
        raise ValueError(
            f"this model runs with attn_implementation={name!r}, which is not of randfeat: call register and "
            "model.set_attn_implementation first."
        )
    set_mark(model, digest(attention.description))
    model.config.attn_implementation = name  # which configs read from their files, but do not write
    try:
        model.save_pretrained(save_directory, **options)
    finally:
        del model.config.attn_implementation
    save(os.path.join(os.fspath(save_directory), FILE), attention.description)
