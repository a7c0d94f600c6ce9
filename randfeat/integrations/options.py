"""Keywords of linear_attention that other interfaces pass on."""

import inspect
from collections.abc import Mapping
from typing import Any

from randfeat._hints import keyword_hint, translated
from randfeat.attention import linear_attention

__all__ = ["EVERY", "check_options"]

EVERY = tuple(
    name for name, parameter in inspect.signature(linear_attention).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
)  # fmt: skip
OF_ONE_CALL = ("key_mask", "initial_state", "return_state", "key_lengths", "key_bias", "key_ends", "cu_seqlens")
ALONE = ("decay", "relative_bias", "window")


def check_options(
    options: Mapping[str, Any],
    *,
    where: str,
    refused: tuple[str, ...] = OF_ONE_CALL,
    reason: str = "they belong to one call, as the inputs do",
) -> None:
    """Raise an error for options that are unknown, refused by the caller `where`, or mutually exclusive."""
    unknown = [name for name in options if name not in EVERY]
    if unknown:
        known = frozenset(EVERY)
        hint = translated(unknown[0], known) or keyword_hint(unknown[0], known)
        listing = ", ".join(EVERY)
        hint = "" if hint.startswith("it takes") else f"; {unknown[0]}: {hint}"
        raise TypeError(f"{where} got {', '.join(unknown)}, expected keywords of linear_attention: {listing}{hint}.")
    single = [name for name in options if name in refused]
    if single:
        raise ValueError(f"{', '.join(single)} cannot be given to {where}: {reason}.")
    given = [name for name in ALONE if options.get(name) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} cannot be combined; give one of them.")
    if options.get("num_sinks") and options.get("window") is None:
        raise ValueError(
            "num_sinks needs window, which may be 0: the first keys have exact weights beside those in it."
        )
    if options.get("decay") is not None and options.get("is_causal") is False:
        raise ValueError("decay needs is_causal=True: it fades with the distance to the keys before a query.")
    method = options.get("method", "linear")
    if method not in ("linear", "exact", "auto"):
        raise ValueError(f'method must be "linear", "exact" or "auto", got {method!r}.')
