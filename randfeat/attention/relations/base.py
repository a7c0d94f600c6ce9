"""Relation: which keys a query sees, and with what weight beside the kernel."""

import abc
import numbers
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from randfeat._array import Array, broadcast_shapes, device_of, is_array, namespace
from randfeat._hints import short
from randfeat.attention.generic.passes import Passed
from randfeat.attention.generic.sweeps import Gradients
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations.work import Sizes, Work, feature_work
from randfeat.attention.state import AttentionState
from randfeat.kernels import Kernel
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Setting:
    """The inputs and the other options of a call, against which a relation is checked."""

    inputs: Inputs
    is_causal: bool
    offset: int
    num_features: int | None
    """None for exact attention."""
    has_state: bool
    num_sinks: int = 0


@dataclass(frozen=True, eq=False)
class Relation(abc.ABC):
    """A rule: which keys query i sees, at the position i + offset among them, and the factor of each kernel value.

    With `is_causal` a query sees no key behind its own position. A new relation is one subclass: `of` checks its
    option, `attend` is the linear-time pass, `log_factors` and `visible` define it pair by pair for exact attention.
    """

    is_causal: bool = False
    offset: int = 0

    @classmethod
    @abc.abstractmethod
    def of(cls, option: Any, setting: Setting) -> Self:
        """The relation that the option of a call stands for; ValueError or TypeError if it does not fit."""

    @abc.abstractmethod
    def attend(self, inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
        """Linear attention of prepared inputs after the keys in `state`: partial outputs, and the state at the end."""

    def pull_back(self, inputs: Inputs, features: FeatureMap, gradient: Array, state: AttentionState) -> Gradients:
        """The gradients in query, key and value from that in the output of `attend`; ValueError if there are none."""
        raise ValueError(f"{type(self).__name__} has no analytic gradient; differentiate by PyTorch or JAX.")

    @property
    def is_aligned(self) -> bool:
        """Whether queries see all keys, or causally those up to their own position, and nothing else is asked."""
        return False

    def has_fast_form(self, kernel: Kernel) -> bool:
        """Whether a fast executor takes it, at any offset, for features of this kernel that are exponentials."""
        return False

    @property
    def has_exact_form(self) -> bool:
        """Whether the relation is a table of pairs, without reference to single features."""
        return True

    @property
    def arrays(self) -> list[Array]:
        """The arrays of the relation, of NumPy and other libraries, and those of relations within it."""
        found: list[Array] = []
        for part in (getattr(self, field.name) for field in fields(self)):
            found += part.arrays if isinstance(part, Relation) else [part] * is_array(part)
        return found

    def with_arrays(self, arrays: Iterator[Array]) -> Self:
        """The relation with the next of these arrays in place of each of its own, in the order of `arrays`."""
        changed: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            part = getattr(self, name)
            if isinstance(part, Relation):
                changed[name] = part.with_arrays(arrays)
            elif is_array(part):
                changed[name] = next(arrays)
        return replace(self, **changed)

    def sequences(self, inputs: Inputs) -> Iterator[tuple[slice, Inputs, "Relation"]]:
        """The sequences that do not see each other: positions of the queries, inputs, and the relation within."""
        yield slice(0, inputs.num_queries), inputs, self

    def restricted(self, queries: slice, keys: slice, num_queries: int) -> "Relation":
        """The relation within one of the packed sequences, of these queries to these keys."""
        return self

    def log_weights(self, start: int, stop: int, inputs: Inputs) -> Array | None:
        """Logarithms of the kernel's factors for the queries from `start` to `stop`; `-inf` for keys not seen.

        For exact attention; None stands for zeros.
        """
        logs, visible = self.log_factors(start, stop, inputs), self.visible(start, stop, inputs)
        if visible is None:
            return logs
        xp = namespace(inputs.query)
        if logs is None:
            logs = xp.zeros((1, 1), dtype=inputs.query.dtype, device=device_of(inputs.query))
        return xp.where(visible, logs, -xp.inf)

    def log_factors(self, start: int, stop: int, inputs: Inputs) -> Array | None:
        """Logarithms of the kernel's factors, (..., stop - start, S); None for factors 1."""
        return None

    def visible(self, start: int, stop: int, inputs: Inputs) -> Array | None:
        """A mask of the keys that these queries see, (..., stop - start, S); None if they see all."""
        if not self.is_causal:
            return None
        queries, keys = positions(start, stop, inputs)
        return keys <= queries + self.offset

    def exact_pairs(self, num_queries: int, num_keys: int, block: int) -> int:
        """Pairs that exact attention computes, `block` queries at a time; keys behind all of them are left out."""
        pairs = 0
        for start in range(0, num_queries, block):
            stop = min(start + block, num_queries)
            pairs += (stop - start) * (min(max(stop + self.offset, 0), num_keys) if self.is_causal else num_keys)
        return pairs

    @property
    def exact_passes(self) -> int:
        """Passes of exact attention over its pairs, beside those of the softmax."""
        return 2 * self.is_causal

    @property
    def is_sequential(self) -> bool:
        """Whether linear attention goes through the keys chunk by chunk."""
        return self.is_causal

    def linear_work(self, sizes: Sizes) -> Work:
        """The work of `attend`, for the cost model."""
        rows = sizes.query_heads * sizes.num_queries + sizes.key_heads * sizes.num_keys
        return feature_work(sizes, rows, is_causal=self.is_causal)


def positions(start: int, stop: int, inputs: Inputs) -> tuple[Array, Array]:
    """Indices of some queries, as a column, and of all keys, as a row."""
    xp, device = namespace(inputs.query), {"device": device_of(inputs.query)}
    return xp.arange(start, stop, **device)[:, None], xp.arange(inputs.num_keys, **device)[None, :]


def as_int(value: Any, name: str) -> int:
    """`value` as a Python integer; TypeError for anything else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {short(value)}.")
    return int(value)


def check_leading(name: str, shape: tuple[int, ...], inputs: Inputs) -> None:
    """Leading dimensions that broadcast against those of queries and keys, without adding any."""
    lead = broadcast_shapes(inputs.query.shape[:-2], inputs.key.shape[:-2], inputs.value.shape[:-2])
    try:
        fits = broadcast_shapes(shape, lead) == lead
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} has leading dimensions {tuple(shape)}, expected ones that broadcast to {lead}.")
