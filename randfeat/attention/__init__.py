"""Attention through random features in linear time, the exact references, and which of them is faster."""

from randfeat.attention.cost_model.method import AttentionMethod, attention_method
from randfeat.attention.cost_model.rates import AttentionCosts
from randfeat.attention.decoder import AttentionDecoder
from randfeat.attention.exact import kernel_attention, softmax_attention
from randfeat.attention.gradient import linear_attention_vjp
from randfeat.attention.linear import linear_attention
from randfeat.attention.partial import PartialOutput
from randfeat.attention.state import AttentionState

__all__ = [
    "AttentionCosts",
    "AttentionDecoder",
    "AttentionMethod",
    "AttentionState",
    "PartialOutput",
    "attention_method",
    "kernel_attention",
    "linear_attention",
    "linear_attention_vjp",
    "softmax_attention",
]
