"""`save` and `load`: objects to and from a JSON header with arrays."""

import dataclasses
import os
from typing import Any

import numpy as np

from randfeat._array import as_count, as_floating, as_host, broadcasts_to, dtype_name, move_to
from randfeat._hints import short
from randfeat.attention.state import AttentionState
from randfeat.estimators import Estimator
from randfeat.features import ExponentialForm, FourierForm
from randfeat.maps import FeatureMap
from randfeat.storage import archive
from randfeat.storage.curves import curve_of, is_curve, plain
from randfeat.storage.records import RECORD, RECORDS, check_record, moved
from randfeat.storage.registry import LAWS, classes

FORMAT, VERSION = "randfeat", 1
STATE_ARRAYS = ("log_max", "weighted", "total")
LONGEST_REASON = 400


def save(path: str | os.PathLike[str], obj: Any) -> None:
    """Write a feature map, a law, a state of attention, a key cache, clusters of queries, moments of features or an
    error curve to a file.

    Or several of them, in a list, or in a dictionary whose keys are strings or integers, as `calibrate` returns it. A
    dictionary may hold their parameters beside them: numbers, strings, arrays, tuples, dictionaries.

    The file is an npz archive: the arrays with all their digits, and a header in JSON with the names of classes and
    their fields. It holds no code and is read without pickle. A state is saved with the fingerprint of its feature map.
    Register classes of your own first (`register`), in the program that saves and in the program that loads.

    The file has exactly the given name; no suffix is added. A file of this name is replaced in one step when the new
    one is complete. So a save that fails or is interrupted does not change the old file.

    >>> import tempfile, numpy as np, randfeat as rf
    >>> phi = rf.PositiveFeatures().draw(dim=4, num_features=8, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rf.save(f"{folder}/phi.npz", phi)
    ...     again = rf.load(f"{folder}/phi.npz")
    >>> again.estimator == phi.estimator, bool(np.all(again.arrays["rows"] == phi.arrays["rows"]))
    (True, True)
    """
    if not is_stored(obj):
        raise TypeError(refusal(obj))
    arrays: dict[str, np.ndarray] = {}
    header = {"format": FORMAT, "version": VERSION, "object": encode(obj, arrays)}
    archive.write(os.fsdecode(path), header, arrays)


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """Read a file of `save`: as NumPy arrays, or in the namespace, device and computing dtype of `like`.

    An object is returned only if its parameters are possible and its arrays fit them. Otherwise ValueError is raised,
    and the message names the file. Other reasons for ValueError are a file of another kind, a damaged file, a newer
    format, unknown classes, and a pipe or a device, which may have no end. OSError is raised if the file cannot be
    opened.

    Entries are not compressed, and their lengths are checked, so loading takes no more memory than the file has. No
    code from the file is run. But the numbers in the file are used as they are: whoever wrote the file decides what the
    map computes.
    """
    name = os.fsdecode(path)
    like = None if like is None else as_floating(like, "like")
    if archive.is_special(name):
        raise ValueError(f"{name!r} is not a regular file; copy its content to one, and load that.")
    with open(name, "rb") as file:
        try:
            header, arrays = archive.read(file)
        except Exception as error:  # whatever zipfile, numpy and json say to it
            raise ValueError(f"{name!r} was not written by randfeat.save, or was damaged: {reason(error)}") from error
    try:
        check_version(header)
        obj = decode(header["object"], arrays)
        if not is_stored(obj):
            raise TypeError(f"expected a feature map, a law or an attention state, got {short(obj)}.")
    except Exception as error:  # whatever classes say to their parameters
        raise ValueError(f"{name!r} holds nothing that this randfeat can make: {reason(error)}") from error
    if like is None:
        return obj
    if isinstance(obj, FeatureMap):
        return obj.to(like)
    if isinstance(obj, AttentionState):
        sums = {field: move_to(getattr(obj, field), like) for field in STATE_ARRAYS}
        return AttentionState(**sums, origin=obj.origin)
    return moved(obj, like) if isinstance(obj, RECORD) else obj


def is_stored(obj: Any) -> bool:
    """Whether files are for such objects, lists of them, or dictionaries with one of them at least."""
    if isinstance(obj, list | tuple):
        return all(map(is_stored, obj))
    if isinstance(obj, dict):
        return any(map(is_stored, obj.values()))
    return isinstance(obj, FeatureMap | AttentionState | RECORD | LAWS) or is_curve(obj)


def refusal(obj: Any) -> str:
    """The error message for an object that cannot be saved."""
    if isinstance(obj, LAWS) and dataclasses.is_dataclass(obj):
        name = type(obj).__name__
        return (
            f"cannot save a {name}, which is no class of randfeat: register it first, with randfeat.register({name})."
        )
    return (
        f"cannot save a {type(obj).__name__}: expected a feature map, a state of attention, a key cache, clusters of "
        "queries, moments of features, an error curve, or an estimator, kernel or coupling of randfeat, with "
        "parameters that are numbers, strings, tuples or arrays; or a list or dictionary of them, with keys that are "
        "strings or integers."
    )


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
    if isinstance(value, dict):
        if not all(is_key(key) for key in value):
            raise TypeError(refusal(value))
        return {"dict": [[key, encode(item, arrays)] for key, item in value.items()]}
    if isinstance(value, FeatureMap):
        drawn = {name: kept(on_host(array), arrays) for name, array in value.arrays.items()}
        fields = {"estimator": encode(value.estimator, arrays), "dim": value.dim, "num_features": value.num_features}
        return {"map": fields, "arrays": drawn}
    if isinstance(value, AttentionState):
        stored = {name: kept(on_host(getattr(value, name)), arrays) for name in STATE_ARRAYS}
        return {"state": stored, "origin": value.fingerprint}
    if is_curve(value):
        return {"curve": encode(plain(value), arrays)}
    name = type(value).__name__
    if isinstance(value, RECORD):
        return {
            "record": name,
            "fields": {f.name: encode_field(getattr(value, f.name), arrays) for f in dataclasses.fields(value)},
        }
    if classes().get(name) is not type(value) or not dataclasses.is_dataclass(value):
        raise TypeError(refusal(value))
    fields = {f.name: encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value) if f.init}
    return {"class": name, "fields": fields}


def encode_field(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A field of a record in JSON's terms; its arrays may be of any library, and empty."""
    if value is None or isinstance(value, bool | int | float | RECORD | FeatureMap):
        return encode(value, arrays)
    return {"rows": kept(on_host(value), arrays)}


def is_key(key: Any) -> bool:
    """Whether dictionaries in files have such keys."""
    return isinstance(key, int | str) and not isinstance(key, bool)


def on_host(array: Any) -> np.ndarray:
    """The array in NumPy, in its own dtype; bfloat16, which files do not have, as float32."""
    name = dtype_name(array.dtype)
    return as_host(array, "array").astype("float32" if name == "bfloat16" else name)


def kept(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    """The name under which the array was put away."""
    if array.dtype == object:
        raise TypeError("cannot save an array of objects.")
    name = f"array{len(arrays)}"
    arrays[name] = array
    return name


def decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The value that `encode` described; every other description is an error."""
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"number": "nan" | "inf" | "-inf" as number} if len(value) == 1:
            return float(number)
        case {"complex": [real, imaginary]} if len(value) == 1:
            return complex(decode(real, arrays), decode(imaginary, arrays))
        case {"array": name} if len(value) == 1:
            array = of_name(name, arrays)
            if array.size == 0:
                raise ValueError(f"{name} has the shape {array.shape}, but no parameter is empty.")
            return array
        case {"tuple": list(items)} if len(value) == 1:
            return tuple(decode(item, arrays) for item in items)
        case {"dict": list(items)} if len(value) == 1:
            pairs = {key: decode(item, arrays) for key, item in items if is_key(key)}
            if len(pairs) != len(items):
                raise ValueError("keys of a dictionary must be different strings or integers.")
            return pairs
        case {"class": str(name), "fields": dict(fields)} if len(value) == 2:
            return law(name, {field: decode(item, arrays) for field, item in fields.items()})
        case {"state": dict(names), "origin": None | str() as origin} if len(value) == 2:
            sums = {field: of_name(name, arrays) for field, name in names.items()}
            return checked_state(AttentionState(**sums, origin=origin))
        case {"rows": name} if len(value) == 1:
            return of_name(name, arrays)
        case {"record": str(name), "fields": dict(fields)} if len(value) == 2 and name in RECORDS:
            return check_record(RECORDS[name](**{field: decode(item, arrays) for field, item in fields.items()}))
        case {"curve": fields} if len(value) == 1:
            return curve_of(decode(fields, arrays))
        case {"map": dict(fields), "arrays": dict(names)} if len(value) == 2:
            drawn = {field: of_name(name, arrays) for field, name in names.items()}
            parameters = {field: decode(item, arrays) for field, item in fields.items()}
            return checked_map(FeatureMap(**parameters, arrays=drawn))
    raise ValueError(f"expected the description of a value, got {short(value)}.")


def of_name(name: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The array that was put away under this name."""
    if not isinstance(name, str) or name not in arrays:
        raise ValueError(f"there is no array {name!r}.")
    return arrays[name]


def law(name: str, fields: dict[str, Any]) -> Any:
    """The law of this class, which checks its parameters."""
    cls = classes().get(name)
    if cls is None:
        raise ValueError(
            f"this randfeat has no class {name!r}: if it is one of your own, import the module that registers it "
            "(randfeat.register) before the file is loaded; else the file was written by another version."
        )
    unknown = sorted(set(fields) - {f.name for f in dataclasses.fields(cls) if f.init})
    if unknown:
        raise ValueError(f"{name} has no fields {', '.join(unknown)}: the file is of another version.")
    return cls(**fields)


def checked_map(phi: FeatureMap) -> FeatureMap:
    """The map, if its arrays fit its estimator.

    They do if the features of no input at all, (0, dim), have the right shape, which takes no memory and no time.
    """
    if not isinstance(phi.estimator, Estimator):
        raise TypeError(f"a map needs an estimator, got {short(phi.estimator)}.")
    dim, width = as_count(phi.dim, "dim"), as_count(phi.num_features, "num_features")
    shapes = {name: array.shape for name, array in phi.arrays.items()}
    if not (shapes and all(len(shape) >= 2 and 0 not in shape for shape in shapes.values())):
        raise ValueError(f"a map needs arrays (*batch_shape, ., .), not empty, got {shapes}.")
    if {shape[:-2] for shape in shapes.values()} != {phi.batch_shape}:
        raise ValueError(f"the arrays of a map have one batch_shape, got {shapes}.")
    if not broadcasts_to(phi.estimator.batch_shape, phi.batch_shape):
        raise ValueError(
            f"batch_shape {phi.batch_shape} of the arrays must end with {phi.estimator.batch_shape}, the shape of the "
            "sets of parameters."
        )
    check_floating(phi.arrays)
    phi.estimator.check_dim(dim)
    nothing = np.empty((0, dim))
    for features in (phi.queries(nothing), phi.keys(nothing)):
        if {features.values.shape, features.to_array().shape} != {(*phi.batch_shape, 0, width)}:
            raise ValueError(
                f"arrays of the shapes {shapes} make features {features.values.shape[-1]} wide, expected {width}."
            )
    for form in (phi.exponential_form(keys=False), phi.exponential_form(keys=True), phi.fourier_form()):
        if form is not None and not is_of_width(form, width):
            raise ValueError(f"arrays of the shapes {shapes} do not fit one another.")
    return phi


def is_of_width(form: ExponentialForm | FourierForm, width: int) -> bool:
    """Whether every feature has a row and a weight of its own, none that are broadcast."""
    weights = form.log_weights if isinstance(form, ExponentialForm) else form.amplitudes
    phases = form.phases if isinstance(form, FourierForm) else weights
    per_row = 2 if phases is None else 1
    rows = form.rows.shape[-2]
    return per_row * rows == width and all(part is None or part.shape[-2:] == (1, rows) for part in (weights, phases))


def checked_state(state: AttentionState) -> AttentionState:
    """The state, if its sums are for one number of features."""
    sums = {name: getattr(state, name) for name in STATE_ARRAYS}
    check_floating(sums)
    shapes = {name: array.shape for name, array in sums.items()}
    if all(len(shape) >= 2 for shape in shapes.values()):
        width = state.weighted.shape[-2]
        fits = state.total.shape[-2:] == (width, 1) and state.log_max.shape[-2:] in ((1, 1), (1, width))
        np.broadcast_shapes(*(shape[:-2] for shape in shapes.values()))
        if fits:
            return state
    raise ValueError(
        f"a state has log_max (..., 1, f or 1), weighted (..., f, dv) and total (..., f, 1), got {shapes}."
    )


def check_floating(arrays: Any) -> None:
    """ValueError for arrays that no features are computed in."""
    for name, array in arrays.items():
        if array.dtype not in (np.float16, np.float32, np.float64):
            raise ValueError(f"{name} must be of a floating dtype, got {array.dtype}.")


def check_version(header: dict[str, Any]) -> None:
    """ValueError for another format, or a newer one."""
    if header.keys() != {"format", "version", "object"}:
        raise ValueError(f"expected a format, a version and an object, got {', '.join(header)}.")
    if header["format"] != FORMAT:
        raise ValueError(f"it has the format {header['format']!r}, expected {FORMAT!r}.")
    if type(header["version"]) is not int or not 1 <= header["version"] <= VERSION:
        raise ValueError(
            f"it has version {header['version']!r} of the format, but this randfeat reads versions 1 to {VERSION}; "
            "update randfeat."
        )


def reason(error: Exception) -> str:
    """The message of an error, as a sentence of bounded length."""
    text = str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + "..."
