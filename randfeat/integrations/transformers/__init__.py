"""Hugging Face transformers: attention of randfeat in models, as `attn_implementation="randfeat"`."""

from randfeat._hints import needs

try:
    import torch as torch
    import transformers as transformers
    from transformers import AttentionMaskInterface as AttentionMaskInterface
except ImportError as error:
    raise ImportError(needs("transformers", "transformers 5.4 or later and PyTorch", "transformers")) from error

from randfeat.integrations.transformers.attention import ModelAttention
from randfeat.integrations.transformers.calibration import calibrate
from randfeat.integrations.transformers.compressed_cache import CompressedCache
from randfeat.integrations.transformers.registration import register, save_pretrained
from randfeat.integrations.transformers.state_cache import StateCache

__all__ = ["CompressedCache", "ModelAttention", "StateCache", "calibrate", "register", "save_pretrained"]
