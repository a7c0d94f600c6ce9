"""Attention through random features in linear time, and the exact references."""

from randfeat.attention.exact import kernel_attention, softmax_attention
from randfeat.attention.gradient import linear_attention_vjp
from randfeat.attention.linear import linear_attention
from randfeat.attention.state import AttentionState

__all__ = ["AttentionState", "kernel_attention", "linear_attention", "linear_attention_vjp", "softmax_attention"]
