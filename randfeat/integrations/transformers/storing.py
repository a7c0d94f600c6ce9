"""A model's attention in a file beside the weights, and the mark in the model's config that asks for it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from randfeat.storage.objects import encode

FILE = "randfeat.npz"
MARK = "randfeat_calibration"
"""Attribute of a config: the digest of the estimators, or of the whole attention, that the model is to run with."""

DEFAULT_WIDTH = 256

_KNOWN: dict[str, int | None] = {}
"""Digests of all that was registered in this process, and the number of features of what was calibrated in it."""


def digest(thing: Any) -> str:
    """A digest of estimators and parameters: equal for what is equal after `save` and `load`."""
    arrays: dict[str, np.ndarray] = {}
    thing = dict(thing) if isinstance(thing, Mapping) else thing
    header = json.dumps(encode(thing, arrays), sort_keys=True)
    result = hashlib.sha256(header.encode())
    for name, array in arrays.items():
        result.update(repr((name, array.shape, str(array.dtype))).encode() + np.ascontiguousarray(array).tobytes())
    return result.hexdigest()


def note_known(thing: Any, width: int | None = None) -> None:
    """Let models run that are marked with the digest of `thing`; width: the number of features it is fitted for."""
    try:
        mark = digest(thing)
    except TypeError:
        return  # of a class that files do not have, so no file will ask for it
    _KNOWN[mark] = _KNOWN.get(mark) if width is None else width


def known_width(estimators: Mapping[int, Any]) -> int:
    """The number of features that estimators were calibrated for in this process, or else the default."""
    try:
        return _KNOWN.get(digest(estimators)) or DEFAULT_WIDTH
    except TypeError:
        return DEFAULT_WIDTH


def check_known(module: torch.nn.Module) -> None:
    """ValueError for a layer of a model whose saved attention has not been registered in this process."""
    mark = getattr(getattr(module, "config", None), MARK, None)
    if mark is not None and mark not in _KNOWN:
        raise ValueError(
            "this model was saved or calibrated with another attention than the one that is registered: call "
            f"register(folder) with the folder that has its {FILE}, or register(randfeat.load(file)) with saved "
            f"estimators, or calibrate it again. To run it with the registered attention, del model.config.{MARK}."
        )


def set_mark(model: torch.nn.Module, mark: str) -> None:
    """Mark the configs of the model and of its parts, which are saved with it."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None:
            setattr(config, MARK, mark)
