"""Masks of a model: which keys its queries see, as far as there is a linear-time form for it.

Models describe a mask by a function of the indices of a query and a key, composed of those in
`transformers.masking_utils`. These are recognized by their code, and their parameters are read from their closures.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from transformers import masking_utils
from transformers.masking_utils import and_masks, bidirectional_mask_function, causal_mask_function, sdpa_mask

from randfeat.integrations.masks import key_bias_of, key_mask_of

OPTIONS = "randfeat_options"
"""Attribute of a mask: keywords of linear attention that say the same as the mask of pairs, but for the keys' own."""

MaskFunction = Callable[..., Any]


def code_of(name: str, *arguments: Any) -> Any:
    """The code of the mask functions that a function of `masking_utils` makes; None where it has no such function."""
    make = getattr(masking_utils, name, None)
    return None if make is None else make(*arguments).__code__


ALL_OF = and_masks(causal_mask_function).__code__
PACKED = code_of("packed_sequence_mask_function", None)
REMAPPED = code_of("remap_positions_for_packed_sequence", causal_mask_function, None)
SLIDING = code_of("sliding_window_overlay", 1)
SLIDING_BOTH_WAYS = code_of("sliding_window_bidirectional_overlay", 1)
CHUNKED = code_of("chunked_overlay", 1, None)


def padding_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: MaskFunction = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    device: Any = None,
    **others: Any,
) -> torch.Tensor | None:
    """Mask of keys for a model, bool (batch, 1, 1, S) or None, in the interface of transformers.

    Every mask of a single query is a mask of keys. For several queries the causal part is left out, as `is_causal` does
    it. Where queries are at other positions than the last keys, and where sequences are packed, keywords of linear
    attention are an attribute of the mask. It then has two rows, (batch, 1, 2, S), so that a copy of it, which has lost
    them, is refused. Other masks over pairs raise ValueError, unless they hide nothing from such short inputs.
    """
    check_length(attention_mask, kv_offset, kv_length)
    if q_length == 1:
        mask = sdpa_mask(
            batch_size, 1, kv_length, q_offset, kv_offset, mask_function, attention_mask, device=device, **others
        )
        if mask is not None and not torch.compiler.is_compiling():
            setattr(mask, OPTIONS, {"causal_offset": int(q_offset) - kv_offset})
        return mask
    if mask_function not in (causal_mask_function, bidirectional_mask_function):
        refuse_to_compile()
    is_causal, sequences = False, None
    for part in parts_of(mask_function):
        is_causal = is_causal or part is causal_mask_function
        parameters = inspect.getclosurevars(part).nonlocals
        code = getattr(part, "__code__", None)
        if code is PACKED:
            sequences = parameters["packed_sequence_mask"]
        elif part not in (causal_mask_function, bidirectional_mask_function):
            end = max(int(q_offset) + q_length, kv_offset + kv_length)
            refuse_unless(hides_nothing(code, parameters, min(int(q_offset), kv_offset), end))
    mask = None
    if attention_mask is not None:
        padded = torch.nn.functional.pad(attention_mask, (0, max(0, kv_offset + kv_length - attention_mask.shape[-1])))
        mask = padded[:, None, None, kv_offset : kv_offset + kv_length].to(torch.bool)
    options: dict[str, Any] = {}
    if sequences is not None:
        options["cu_seqlens"] = cuts_of(sequences)
    if is_causal and (offset := int(q_offset) - kv_offset) != kv_length - q_length:
        options["causal_offset"] = offset
    if not options:
        return mask
    if mask is None:
        mask = torch.ones((batch_size, 1, 1, kv_length), dtype=torch.bool, device=device)
    twice = mask.expand(-1, -1, 2, -1).contiguous()
    setattr(twice, OPTIONS, options)
    return twice


def check_length(attention_mask: torch.Tensor | None, num_before: int, num_new: int) -> None:
    """ValueError for a text that is no continuation of the tokens which a cache without keys has seen."""
    if not num_before:
        return
    if not num_new:
        raise ValueError(no_continuation(num_before, "the text that is given has no more of them"))
    if attention_mask is not None and (length := attention_mask.shape[-1]) < num_before + num_new:
        what = f"attention_mask has only {length} entries, and {num_new} tokens are new"
        raise ValueError(no_continuation(num_before, what))


def no_continuation(num_before: int, what: str) -> str:
    """The message for a text that is none."""
    return (
        f"this cache has {num_before} tokens and continues their text, but {what}. For another text, reset() the cache "
        "or make a new one. To continue, give generate the whole text so far, and the model a mask of its length."
    )


def parts_of(mask_function: MaskFunction) -> Iterator[MaskFunction]:
    """The functions whose conjunction a mask function is."""
    code = getattr(mask_function, "__code__", None)
    parameters = inspect.getclosurevars(mask_function).nonlocals if code in (ALL_OF, REMAPPED) and code else {}
    if code is ALL_OF:
        for part in parameters["mask_functions"]:
            yield from parts_of(part)
    elif code is REMAPPED and code is not None:  # positions within a packed sequence have the same order
        yield from parts_of(parameters["mask_function"])
    else:
        yield mask_function


def hides_nothing(code: Any, parameters: Mapping[str, Any], start: int, end: int) -> bool:
    """Whether a window, sliding or in chunks, is as wide as all positions from `start` to `end`."""
    if code is None:
        return False
    if code is SLIDING:
        return bool(end - start <= parameters["sliding_window"])
    if code is SLIDING_BOTH_WAYS:
        return bool(end - start - 1 <= parameters["sliding_window"])
    return bool(code is CHUNKED and end <= parameters["chunk_size"])


def refuse_unless(possible: bool) -> None:
    """ValueError for a mask over pairs that has no linear-time form."""
    if not possible:
        raise ValueError(
            "this model masks pairs of queries and keys (sliding windows, images, ...), which has no linear-time form: "
            "only padding, causal masks and packed sequences have one, and windows that are as long as the text."
        )


def refuse_to_compile() -> None:
    """ValueError while a model is compiled, for masks that depend on numbers, or on functions that are not plain."""
    if torch.compiler.is_compiling():
        raise ValueError(
            "while a model is compiled, packed sequences and windows cannot be read from masks: if each row has one "
            "sequence, give attention_mask, of ones."
        )


def cuts_of(sequences: torch.Tensor) -> list[int]:
    """Offsets of packed sequences from their numbers (batch, L), for the rows of the batch one behind another."""
    refuse_to_compile()
    starts = torch.ones_like(sequences, dtype=torch.bool)
    starts[:, 1:] = sequences[:, 1:] != sequences[:, :-1]
    return [*starts.flatten().nonzero().flatten().tolist(), sequences.numel()]


def options_of(attention_mask: torch.Tensor | None) -> dict[str, Any]:
    """Keywords of linear attention from the mask that a layer gets: of keys or additive, or from `padding_mask`."""
    if attention_mask is None:
        return {}
    options = dict(getattr(attention_mask, OPTIONS, {}))
    if options:
        attention_mask = attention_mask[..., :1, :]
    if attention_mask.is_floating_point():
        return options | {"key_bias": key_bias_of(attention_mask, 4, name="attention_mask")}
    return options | {"key_mask": key_mask_of(attention_mask, 4, name="attention_mask")}
