"""Relations: which keys a query sees, and with what weight. One relation a file, each with an option of the call."""

from dataclasses import replace
from typing import Any

from randfeat._array import as_bool
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations.base import Relation, Setting, as_int
from randfeat.attention.relations.bias import Bias
from randfeat.attention.relations.decay import Decay
from randfeat.attention.relations.packed import Packed
from randfeat.attention.relations.plain import Plain
from randfeat.attention.relations.prefix import Prefix
from randfeat.attention.relations.window import Window

__all__ = ["Decay", "Plain", "Relation", "Window", "relation_of"]

BY_OPTION: dict[str, type[Relation]] = {
    "decay": Decay,
    "key_ends": Prefix,
    "relative_bias": Bias,
    "window": Window,
}
"""The relation that each option of a call stands for; they exclude each other."""


def relation_of(
    inputs: Inputs,
    *,
    num_features: int | None = None,
    is_causal: bool = False,
    causal_offset: int = 0,
    cu_seqlens: Any = None,
    num_sinks: int = 0,
    has_state: bool = False,
    has_key_lengths: bool = False,
    **options: Any,
) -> Relation:
    """The relation that the options of a call describe, each checked alone and against the others."""
    unknown = sorted(set(options) - set(BY_OPTION))
    if unknown:
        raise TypeError(f"unknown option {', '.join(unknown)}.")
    given = [name for name in BY_OPTION if options.get(name) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} cannot be combined; give one of them.")
    offset = as_int(causal_offset, "causal_offset")
    is_causal = as_bool(is_causal, "is_causal")
    if offset and not is_causal:
        raise ValueError("causal_offset needs is_causal=True: without it every query sees every key.")
    if cu_seqlens is not None:
        refused = {"key_lengths": has_key_lengths, "key_ends": "key_ends" in given, "a state": has_state}
        for name, used in refused.items():
            if used:
                raise ValueError(f"cu_seqlens cannot be combined with {name}: every sequence has keys of its own.")
    sinks = as_int(num_sinks, "num_sinks")
    if sinks and "window" not in given:
        raise ValueError(
            "num_sinks needs window, which may be 0: the first keys have exact weights beside those in it."
        )
    setting = Setting(inputs, is_causal, offset, num_features, has_state, sinks)
    kind = BY_OPTION[given[0]] if given else Plain
    relation = kind.of(options[given[0]] if given else None, setting)
    return relation if cu_seqlens is None else replace(Packed.of(cu_seqlens, setting), each=relation)
