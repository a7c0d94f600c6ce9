"""Saving and loading feature maps, laws and attention states: arrays with a JSON header, no code."""

from randfeat.storage.objects import load, save

__all__ = ["load", "save"]
