"""Saving and loading feature maps, laws and attention states: arrays with a JSON header, no code."""

from randfeat.storage.objects import load, save
from randfeat.storage.registry import register

__all__ = ["load", "register", "save"]
