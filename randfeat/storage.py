"""Saving and loading feature maps, laws and attention states: arrays with a JSON header, no code."""

import dataclasses
import json
import os
import sys
from typing import Any

import numpy as np

from randfeat._array import as_host, dtype_name, move_to
from randfeat.attention.state import AttentionState
from randfeat.maps import FeatureMap

__all__ = ["load", "save"]

FORMAT, VERSION = "randfeat", 1
STATE_ARRAYS = ("log_max", "weighted", "total")
MODULES = ("randfeat.kernels", "randfeat.couplings", "randfeat.estimators")
NUMBERS = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}


def save(path: str | os.PathLike[str], obj: Any) -> None:
    """Write a feature map, an estimator, kernel or coupling of this library, or an attention state to a file.

    The file is an npz archive: the arrays with all their digits, and a header in JSON with the names of classes and
    their fields. It holds no code and is read without pickle. A state carries the
    fingerprint of its feature map along.

    >>> import tempfile, numpy as np, randfeat as rf
    >>> phi = rf.PositiveFeatures().draw(dim=4, num_features=8, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rf.save(f"{folder}/phi.npz", phi)
    ...     again = rf.load(f"{folder}/phi.npz")
    >>> again.estimator == phi.estimator, bool(np.all(again.arrays["rows"] == phi.arrays["rows"]))
    (True, True)
    """
    arrays: dict[str, np.ndarray] = {}
    header = {"format": FORMAT, "version": VERSION, "object": encode(obj, arrays)}
    text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), dtype=np.uint8)
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, header=text, **arrays)


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """What `save` wrote: with NumPy arrays, or on the namespace and device of `like`, in the dtype it is computed in.

    ValueError for a file of another kind, a newer format, or classes that this version does not have.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        known = header["format"] == FORMAT
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{os.fspath(path)!r} was not written by randfeat.save: {error}.") from error
    if not known:
        raise ValueError(f"{os.fspath(path)!r} has the format {header['format']!r}, expected {FORMAT!r}.")
    if not isinstance(header["version"], int) or header["version"] > VERSION:
        raise ValueError(
            f"{os.fspath(path)!r} has version {header['version']} of the format, but this randfeat reads versions up "
            f"to {VERSION}; update randfeat."
        )
    obj = decode(header["object"], arrays)
    if like is None or not isinstance(obj, FeatureMap | AttentionState):
        return obj
    if isinstance(obj, FeatureMap):
        return obj.to(like)
    moved = {name: move_to(getattr(obj, name), like) for name in STATE_ARRAYS}
    return AttentionState(**moved, origin=obj.origin)


def classes() -> dict[str, type]:
    """The frozen dataclasses of this library that describe laws, by name."""
    found: dict[str, type] = {}
    for name, module in list(sys.modules.items()):
        if name.startswith(MODULES):
            found |= {
                thing.__name__: thing
                for thing in vars(module).values()
                if isinstance(thing, type) and dataclasses.is_dataclass(thing) and thing.__module__.startswith(MODULES)
            }
    return found


def encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value in JSON's terms; arrays go to `arrays` and leave their name."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"number": str(value)}
    if isinstance(value, complex):
        return {"complex": [encode(value.real, arrays), encode(value.imag, arrays)]}
    if isinstance(value, np.ndarray):
        return {"array": kept(value, arrays)}
    if isinstance(value, tuple):
        return {"tuple": [encode(item, arrays) for item in value]}
    if isinstance(value, list):
        return [encode(item, arrays) for item in value]
    if isinstance(value, FeatureMap):
        drawn = {name: kept(on_host(array), arrays) for name, array in value.arrays.items()}
        fields = {"estimator": encode(value.estimator, arrays), "dim": value.dim, "num_features": value.num_features}
        return {"map": fields, "arrays": drawn}
    if isinstance(value, AttentionState):
        stored = {name: kept(on_host(getattr(value, name)), arrays) for name in STATE_ARRAYS}
        return {"state": stored, "origin": value.fingerprint}
    name = type(value).__name__
    if classes().get(name) is not type(value) or not dataclasses.is_dataclass(value):
        raise TypeError(
            f"cannot save a {name}: expected a feature map, an attention state, or an estimator, kernel or coupling "
            "of randfeat, with parameters that are numbers, strings, tuples or arrays."
        )
    fields = {f.name: encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value) if f.init}
    return {"class": name, "fields": fields}


def on_host(array: Any) -> np.ndarray:
    """The array in NumPy, in its own dtype."""
    return as_host(array, "array").astype(dtype_name(array.dtype))


def kept(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    """The name under which the array was put away."""
    if array.dtype == object:
        raise TypeError("cannot save an array of objects.")
    name = f"array{len(arrays)}"
    arrays[name] = array
    return name


def decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value that `encode` described."""
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "number" in value:
        return float(NUMBERS[value["number"]])
    if "complex" in value:
        return complex(*(decode(part, arrays) for part in value["complex"]))
    if "array" in value:
        return arrays[value["array"]]
    if "tuple" in value:
        return tuple(decode(item, arrays) for item in value["tuple"])
    if "map" in value:
        fields = {name: decode(item, arrays) for name, item in value["map"].items()}
        return FeatureMap(**fields, arrays={name: arrays[key] for name, key in value["arrays"].items()})
    if "state" in value:
        sums = {name: arrays[value["state"][name]] for name in STATE_ARRAYS}
        return AttentionState(**sums, origin=value["origin"])
    cls = classes().get(value["class"])
    if cls is None:
        raise ValueError(
            f"this randfeat has no class {value['class']!r}: the file was written by another version, or holds a class "
            "of its own, which cannot be loaded."
        )
    fields = {name: decode(item, arrays) for name, item in value["fields"].items()}
    unknown = sorted(set(fields) - {f.name for f in dataclasses.fields(cls) if f.init})
    if unknown:
        raise ValueError(f"{value['class']} has no fields {', '.join(unknown)}: the file is of another version.")
    return cls(**fields)
