"""Records in files: key caches, query clusters, states of streams, and moments of features."""

import dataclasses
from typing import Any

import numpy as np

from randfeat._array import Array
from randfeat._hints import short
from randfeat.compressed import CompressedState, KeyCache, QueryClusters
from randfeat.compressed.clusters import Clusters
from randfeat.compressed.state import Columns
from randfeat.kernels.base import check_positive
from randfeat.maps import FeatureMap
from randfeat.regression import FeatureMoments

RECORD = KeyCache | QueryClusters | CompressedState | Columns | FeatureMoments
RECORDS = {cls.__name__: cls for cls in (KeyCache, QueryClusters, CompressedState, Columns, FeatureMoments)}
FLOATING = (np.float16, np.float32, np.float64)


def check_record(record: Any) -> Any:
    """The record, if its arrays fit one another; ValueError otherwise."""
    if isinstance(record, KeyCache):
        check_cache(record)
    elif isinstance(record, QueryClusters):
        check_clusters(record)
    elif isinstance(record, CompressedState):
        check_state(record)
    elif isinstance(record, FeatureMoments):
        check_moments(record)
    else:
        check_columns(record)
    return record


def check_shapes(arrays: dict[str, tuple[Any, tuple[Any, ...]]]) -> dict[str, int]:
    """The sizes of named dimensions, where every array has its own; `...` stands for the shared leading ones."""
    sizes: dict[str, int] = {}
    leads = set()
    for name, (array, dims) in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype not in FLOATING:
            raise ValueError(f"{name} must be an array of a floating dtype.")
        if array.ndim < len(dims):
            raise ValueError(f"{name} must have at least {len(dims)} dimensions, got the shape {array.shape}.")
        split = array.ndim - len(dims)
        leads.add(array.shape[:split])
        for dim, size in zip(dims, array.shape[split:], strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{name} has the shape {array.shape}, but {dim} is {sizes[dim]} in other arrays.")
    if len(leads) > 1:
        raise ValueError(f"the arrays have different leading dimensions, {sorted(leads)}.")
    return sizes


def check_cache(cache: KeyCache) -> None:
    """ValueError if the rows of a cache do not fit one another."""
    clusters = () if cache.route is None else ("C",)
    rows = {
        "keys": (cache.keys, (*clusters, "n", "d")),
        "bias": (cache.bias, (*clusters, "n")),
        "values": (cache.values, (*clusters, "n", "dv")),
    }
    if cache.route is not None:
        rows["route"] = (cache.route, ("C", "d + 1"))
    sizes = check_shapes(rows)
    if cache.route is not None and sizes["d + 1"] != sizes["d"] + 1:
        raise ValueError(f"route has {sizes['d + 1']} columns, expected {sizes['d'] + 1}.")
    if cache.scale is not None:
        check_positive("scale", cache.scale)


def check_clusters(clusters: QueryClusters) -> None:
    """ValueError if the parameters of clusters do not fit one another."""
    sizes = check_shapes(
        {
            "centers": (clusters.centers, ("C", "d")),
            "query_root": (clusters.query_root, ("d", "d")),
            "query_centers": (clusters.query_centers, ("C", "d")),
            "key_mean": (clusters.key_mean, ("d",)),
            "key_root": (clusters.key_root, ("d", "d")),
            "key_centers": (clusters.key_centers, ("g", "d")),
        }
    )
    if 0 in sizes.values():
        raise ValueError("clusters without centers or dimensions.")
    if len({getattr(clusters, field.name).dtype for field in dataclasses.fields(Clusters)}) > 1:
        raise ValueError("the parameters of clusters have one dtype.")
    if clusters.scale is not None:
        check_positive("scale", clusters.scale)


def check_columns(columns: Columns) -> None:
    """ValueError if keys, biases and values are not of the same rows."""
    dims = {"keys": ("n", "d"), "bias": ("n", "one"), "values": ("n", "dv")}
    sizes = check_shapes({name: (getattr(columns, name), own) for name, own in dims.items()})
    if sizes["one"] != 1:
        raise ValueError(f"bias has {sizes['one']} columns, expected 1.")


def check_state(state: CompressedState) -> None:
    """ValueError for a state that no stream has."""
    parts = (state.sinks, state.merged, state.recent)
    if not all(isinstance(part, Columns) for part in parts):
        raise ValueError("sinks, merged and recent must be rows.")
    shapes = {(part.keys.shape[:-2], part.keys.shape[-1], part.values.shape[-1], part.keys.dtype) for part in parts}
    if len(shapes) > 1:
        raise ValueError("sinks, merged and recent must have the same leading dimensions, dimensions and dtype.")
    sizes = check_shapes({"references": (state.references, ("r", "d + 1"))})
    check_shapes({"priorities": (state.priorities, ("r",))})
    heads = () if state.padding is None else state.batch_shape
    if state.priorities.shape[:-1] != heads or (state.follows and state.priorities.shape[-1] != sizes["r"]):
        raise ValueError(f"priorities must be one for each of the {sizes['r']} references.")
    numbers = {"num_keys": 1, "window": 1, "num_sinks": 0, "position": 0, "seed": 0}
    for name, least in numbers.items():
        number = getattr(state, name)
        if type(number) is not int or number < least:
            raise ValueError(f"{name} must be an int of at least {least}, got {short(number)}.")
    for name in ("follows", "fit"):
        if type(getattr(state, name)) is not bool:
            raise ValueError(f"{name} must be True or False, got {getattr(state, name)!r}.")
    if state.padding is not None and not is_padding(state):
        raise ValueError(f"padding must be integers {state.batch_shape} from 0 to position.")
    if len(state.recent) > 2 * state.window or len(state.merged) > state.num_keys or len(state.sinks) > state.num_sinks:
        raise ValueError("more rows than the sizes of the state allow.")
    check_positive("scale", state.scale)


def check_moments(moments: FeatureMoments) -> None:
    """ValueError for sums that no rows have with this map."""
    phi = moments.features
    if not isinstance(phi, FeatureMap):
        raise ValueError(f"features must be a feature map, got {short(phi)}.")
    dims = {
        "gram": ("m", "m"), "centered_cross": ("m", "k"), "feature_sum": ("m",),
        "centered_sum": ("k",), "centered_gram": ("k", "k"), "origin": ("k",),
    }  # fmt: skip
    arrays = {name: getattr(moments, name) for name in dims}
    of_features = {name: (arrays.pop(name), dims[name]) for name in ("gram", "centered_cross", "feature_sum")}
    sizes = check_shapes(of_features), check_shapes({name: (x, dims[name]) for name, x in arrays.items()})
    lead = moments.gram.shape[:-2]
    if lead != phi.batch_shape or sizes[0]["m"] != phi.num_features or sizes[0]["k"] != sizes[1]["k"]:
        raise ValueError("the sums are not those of the features and targets.")
    if any(x.ndim != len(dims[name]) for name, x in arrays.items()):
        raise ValueError("sums of targets have no leading dimensions.")
    if len({getattr(moments, name).dtype for name in dims}) > 1 or moments.gram.dtype == np.float16:
        raise ValueError("all sums have one dtype, float32 or float64.")
    count, num_rows = moments.count, moments.num_rows
    if type(num_rows) is not int or num_rows < 0 or type(count) not in (int, float) or not 0 <= count < np.inf:
        raise ValueError(f"count and num_rows must be 0 or more, got {short(count)} and {short(num_rows)}.")


def is_padding(state: CompressedState) -> bool:
    """Whether the padding of a state is one that its sequences can have."""
    padding = state.padding
    if not isinstance(padding, np.ndarray) or padding.dtype != np.int64 or padding.shape != state.batch_shape:
        return False
    return bool(np.all((padding >= 0) & (padding <= state.position)))


def moved(record: Any, like: Array) -> Any:
    """The record with its arrays in the library, device and computing dtype of `like`."""
    return record if isinstance(record, QueryClusters) else record.to(like)  # parameters stay on the host
