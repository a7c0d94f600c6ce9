"""Keywords that models pass to their attention function, beside those that are used."""

import warnings
from collections.abc import Mapping
from typing import Any

REFUSED = {
    "softcap": "a bound of the logits",
    "position_bias": "a bias of pairs of queries and keys",
    "s_aux": "an attention sink",
    "sinks": "an attention sink",
    "indices": "a choice of keys for each query",
    "block_indices": "a choice of keys for each query",
    "head_mask": "a factor of single weights",
    "cache": "a paged cache",
    "block_table": "a paged cache",
    "k_cache": "a paged cache",
    "v_cache": "a paged cache",
}
"""Keywords that change the outputs and have no form here, and what they are."""

WITHOUT_EFFECT = {
    "deterministic",
    "max_length_k",
    "max_length_q",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "position_ids",
    "return_dict",
    "use_cache",
}
"""Keywords that the outputs do not depend on; `output_attentions` where it is not set."""


def check_keywords(others: Mapping[str, Any], sliding_window: int | None, num_keys: int, *, masked: bool) -> None:
    """ValueError for keywords that would change the outputs, and a warning for those that are not known.

    masked : whether a mask of keys leaves only those in the window, as it does for a single query.
    """
    for name, what in REFUSED.items():
        if others.get(name) is not None:
            raise ValueError(f"{name} of this layer, {what}, has no linear-time form: use another attn_implementation.")
    if others.get("output_attentions"):
        raise ValueError('output_attentions: single weights are never computed; attn_implementation="eager" has them.')
    unknown = [name for name in others if name not in WITHOUT_EFFECT and others[name] is not None]
    if unknown:
        warnings.warn(f"{', '.join(unknown)} of this layer is not known to randfeat, and has no effect.", stacklevel=2)
    if sliding_window is not None and num_keys > sliding_window and not masked:
        raise ValueError(
            f"sliding_window {sliding_window} of this layer has no linear-time form for {num_keys} keys; it must be at "
            "least their number."
        )
