"""Plain: every query sees all keys, or causally those up to its own position."""

from dataclasses import dataclass
from typing import Any, Self

from randfeat._array import Array
from randfeat.attention.generic.passes import Passed, causal_pass, full_pass
from randfeat.attention.generic.sweeps import Gradients, causal_sweeps, full_sweeps
from randfeat.attention.inputs import Inputs
from randfeat.attention.relations.base import Relation, Setting
from randfeat.attention.state import AttentionState
from randfeat.kernels import Kernel
from randfeat.maps import FeatureMap


@dataclass(frozen=True, eq=False)
class Plain(Relation):
    """All keys, or with `is_causal` the keys 0 .. i + offset."""

    @classmethod
    def of(cls, option: Any, setting: Setting) -> Self:
        return cls(setting.is_causal, setting.offset)

    @property
    def is_aligned(self) -> bool:
        return self.offset == 0

    def has_fast_form(self, kernel: Kernel) -> bool:
        return True

    def attend(self, inputs: Inputs, features: FeatureMap, state: AttentionState) -> Passed:
        if self.is_causal:
            return causal_pass(inputs, features, state, offset=self.offset)
        return full_pass(inputs, features, state)

    def pull_back(self, inputs: Inputs, features: FeatureMap, gradient: Array, state: AttentionState) -> Gradients:
        if self.is_causal:
            return causal_sweeps(inputs, features, gradient, state, offset=self.offset)
        return full_sweeps(inputs, features, gradient, state)
