"""Files that are nearly what rf.save writes: mutations of bytes, of archives and of headers, by a seeded generator."""

import io
import json
import struct
import zipfile
from dataclasses import dataclass

import numpy as np

import randfeat as rf
from randfeat.storage import objects
from tests import cases
from tests.test_every_estimator import width_of

DIM = 4


def fitted_estimators():
    query, key = np.random.default_rng(0).standard_normal((2, 2, 12, DIM))
    for level in ("center", "balance", "dense", "posterior"):
        yield rf.adapt(query, key, level=level, num_features=8, rng=0, anchor_scale="rule")
    yield rf.PoissonFeatures(rate=[0.4, 0.6])
    yield rf.OptimalPositiveFeatures.fit(query, key)


def maps():
    """Maps of every estimator, of every coupling, of fitted ones, and a batch."""
    kinds = {(type(e), getattr(e, "variant", None)): e for e in cases.ESTIMATORS}
    rows = [rf.PositiveFeatures(coupling=coupling) for coupling in cases.OTHER_COUPLINGS]
    for estimator in [*kinds.values(), *cases.OTHERS, *cases.OPEN, *rows]:
        yield estimator.draw(DIM, width_of(estimator), rng=0)
    for estimator in fitted_estimators():
        yield estimator.draw(DIM, 8, rng=0)
    yield rf.PositiveFeatures().draw(DIM, 6, rng=0, batch_shape=(2, 3), like=np.float32(0))


def states():
    x = np.random.default_rng(1).standard_normal((2, 5, DIM))
    for phi in (rf.PositiveFeatures().draw(DIM, 6, rng=0), rf.TrigonometricFeatures().draw(DIM, 6, rng=0)):
        yield rf.linear_attention(x, x, x, phi, return_state=True)[1]
    yield rf.AttentionState.empty(6, 3, like=x)


def records():
    """Sums over rows of data, and the state of a stream in which sequences have different padding."""
    x = np.random.default_rng(2).standard_normal((2, 2, 20, DIM))
    phi = rf.PositiveFeatures().draw(DIM, 6, rng=0)
    yield rf.FeatureMoments.of(phi, x[0, 0], x[0, 0, :, :2], sample_weight=np.arange(20))
    yield rf.FeatureMoments.empty(rf.TrigonometricFeatures().draw(DIM, 6, rng=0, batch_shape=(2,)))
    options = {"num_keys": 3, "window": 4, "is_causal": True, "return_state": True}
    yield rf.compressed_attention(x, x, x, **options, key_mask=np.arange(20) >= np.array([[[0]], [[5]]]))[1]


def corpus():
    """Objects of every kind that is saved."""
    laws = [*cases.OTHERS[::4], *cases.COUPLINGS, *cases.OTHER_COUPLINGS, *cases.KERNELS, *fitted_estimators()]
    laws += {repr(estimator.kernel): estimator.kernel for estimator in cases.OTHERS}.values()
    return [*maps(), *states(), *records(), *laws]


def parts_of(content):
    """The entries of an archive, (name, bytes), and the header."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    header = np.load(io.BytesIO(dict(entries)["header.npy"])).tobytes()
    return [entry for entry in entries if entry[0] != "header.npy"], json.loads(header)


def archived(entries, compression=zipfile.ZIP_STORED):
    """The archive of these entries, with right checksums, whatever their names and contents."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries:
            archive.fp.seek(0, io.SEEK_END)
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            archive.NameToInfo.pop(name, None)  # so that a name may be there twice
            archive.writestr(info, content)
    return file.getvalue()


def npy(array):
    """The bytes of a .npy file; objects are pickled."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array))
    return file.getvalue()


def npy_saying(head, content=b"", version=(1, 0)):
    """A .npy file with this text for its header."""
    head = head.encode("latin1") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(head))
    return b"\x93NUMPY" + bytes(version) + length + head + content


def whole(entries, header):
    """An archive with a header, a value of JSON or its text in bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return archived([("header.npy", npy(np.frombuffer(text, np.uint8))), *entries])


def pick(rng, things):
    """One of the things, whatever they are."""
    return things[rng.integers(len(things))]


@dataclass(frozen=True)
class Source:
    """A genuine file, in its parts."""

    content: bytes
    entries: list
    header: dict


def sources(folder):
    """The corpus, written by rf.save."""
    found = []
    for thing in corpus():
        rf.save(folder / "genuine.npz", thing)
        content = (folder / "genuine.npz").read_bytes()
        found.append(Source(content, *parts_of(content)))
    return found


# bytes ------------------------------------------------------------------------------------------------------------


def mutate_bytes(source, others, rng):
    """The file with bits flipped, or stretches cut, doubled, moved, or taken from another file."""
    content = bytearray(source.content)
    for _ in range(pick(rng, (1, 1, 1, 2, 5))):
        size = max(len(content), 1)
        start, length = int(rng.integers(size)), int(pick(rng, (1, 2, 8, 64, 300)))
        stretch = content[start : start + length]
        other = int(rng.integers(size))
        kind = rng.integers(10)
        if kind <= 2 and content:
            content[start] ^= 1 << int(rng.integers(8))
        elif kind == 3:
            content[start : start + length] = rng.bytes(length)
        elif kind == 4:
            del content[start:]
        elif kind == 5:
            del content[start : start + length]
        elif kind == 6:
            content[other:other] = stretch
        elif kind == 7:
            content[start : start + length] = bytes(length)
        elif kind == 8:
            content[other : other + length] = stretch
        else:
            theirs = pick(rng, others).content
            content = content[:start] + theirs[int(rng.integers(len(theirs))) :]
    return bytes(content)


# entries ----------------------------------------------------------------------------------------------------------

NAMES = ("../../array0.npy", "/tmp/array0.npy", "array0", "array99.npy", "header.npy", "array00.npy", "", "array-1.npy",
         "..\\array0.npy", "array0.npy.npy", "é.npy", "a" * 5000 + ".npy", "array0.npy/", "array٣.npy")  # fmt: skip
HEADS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (100000000, 4), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1000000000000000), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (0, " + "9" * 40 + "), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-8, -4), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (8L, 4L), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 4), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (8, 4)}",
    "{'descr': '<f8', 'fortran_order': True, 'shape': (8, 4), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': " + repr((1,) * 70) + ", }",
    "{'descr': '<f8', 'fortran_order': 0, 'shape': [8, 4], }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': [('a', '<f8'), ('b', '|O')], 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (4,), }",
    "(" * 3000,
    "{'descr': '\\d', 'shape': 0x1for 2}",
    "",
)


def changed_array(array, rng):
    """The array with another shape, dtype or other values."""
    array = np.array(array)
    changes = (
        lambda a: a.astype(
            pick(rng, (np.float32, np.float16, np.int64, np.int8, bool, complex, np.longdouble, object))
        ),
        lambda a: a.astype(pick(rng, ("U8", "S4", ">f8", ">f4"))),
        lambda a: np.asfortranarray(a.T),
        lambda a: a[None],
        lambda a: np.stack([a, a]),
        lambda a: a.ravel(),
        lambda a: a[..., :-1] if a.ndim else a,
        lambda a: a[..., :1] if a.ndim else a,
        lambda a: np.concatenate([a, a], axis=-1) if a.ndim else a,
        lambda a: a[:1] if a.ndim else a,
        lambda a: a[:0] if a.ndim else a,
        lambda a: np.concatenate([a, a]) if a.ndim else a,
        lambda a: np.zeros((*a.shape[:-1], 0)),
        lambda a: np.array(a.flat[0] if a.size else 0.0),
        lambda a: np.broadcast_to(a, (*(1,) * (60 - a.ndim), *a.shape)),
        lambda a: np.full(a.shape, pick(rng, (np.nan, np.inf, -np.inf, 0.0, 1e308, -1.0, 1e-320))),
        lambda a: a * pick(rng, (1e200, -1, 0)),
        lambda a: np.zeros(a.shape, [("a", "f8"), ("b", "i4")]),
        lambda a: np.empty(a.shape, "V0"),
    )
    return pick(rng, changes)(array)


def mutate_entries(source, others, rng):
    """A sound archive with wrong entries: missing, swapped, renamed, twice, packed, and with arrays of other kinds."""
    entries = [("header.npy", npy(np.frombuffer(json.dumps(source.header).encode(), np.uint8))), *source.entries]
    arrays = {name: np.load(io.BytesIO(content)) for name, content in source.entries}
    for _ in range(pick(rng, (1, 1, 1, 2))):
        at, other = int(rng.integers(len(entries))), int(rng.integers(len(entries)))
        if rng.random() < 0.8 and len(entries) > 1:  # more often an array than the header
            at = int(rng.integers(1, len(entries)))
        name, content = entries[at]
        kind = rng.integers(12)
        if kind <= 3 and name in arrays:
            entries[at] = name, npy(changed_array(arrays[name], rng))
        elif kind == 4 and len(entries) > 1:
            del entries[at]
        elif kind == 5:
            entries[at], entries[other] = (name, entries[other][1]), (entries[other][0], content)
        elif kind == 6:
            entries[at] = pick(rng, NAMES), content
        elif kind == 7:
            entries.append((pick(rng, (name, *NAMES)), content))
        elif kind == 8:
            version = pick(rng, ((1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
            entries[at] = name, npy_saying(pick(rng, HEADS), content[128:], version)
        elif kind == 9 and content:
            changed = bytearray(content)
            changed[int(rng.integers(min(len(content), 128)))] = int(rng.integers(256))
            entries[at] = name, bytes(changed)
        elif kind == 10:
            entries[at] = name, pick(rng, (b"", content[:-1], content + b"\0", content[:60], rng.bytes(50)))
        else:
            entries += pick(rng, others).entries
    compression = pick(rng, (zipfile.ZIP_STORED,) * 19 + (zipfile.ZIP_DEFLATED,))
    content = archived(entries, compression)
    if rng.random() < 0.1:  # the directory lies about an entry: its method, sums, sizes, place
        content = bytearray(content)
        start = content.rfind(b"PK\x01\x02")
        at = start + int(pick(rng, (8, 10, 16, 20, 24, 42)))
        content[at : at + 4] = pick(rng, (b"\xff\xff\xff\xff", b"\0\0\0\0", rng.bytes(4), b"\xff\xff\xff\x7f"))
    return bytes(content)


# headers ----------------------------------------------------------------------------------------------------------

CLASSES = ("Popen", "object", "__class__", "Estimator", "Kernel", "Coupling", "Mixer", "SoftmaxFamily", "Activation",
           "GaussianPair", "Mixture", "CombinedKernel", "FeatureMap", "AttentionState", "", "os.system")  # fmt: skip


def hostile_values():
    """What stands in a header where something else should."""
    deep: list = []
    for _ in range(300):
        deep = [deep]
    nested: object = {"class": "Independent", "fields": {}}
    for _ in range(300):
        nested = {"class": "Antithetic", "fields": {"base": nested}}
    return [
        None, True, False, 0, -1, 1, 2, 3, 0.5, -0.0, 1e308, 10**18, 10**30, 10**400, "", "x", "orthogonal", "\0",
        "\ud800", [], {}, [0], [[]], ["x", None], {"x": 1}, deep, nested,
        "x" * 10000, float("nan"), float("inf"),
        {"number": "nan"}, {"number": "inf"}, {"number": "1_0"}, {"number": 3}, {"number": []},
        {"number": "nan", "x": 1},
        {"complex": [0, 1]}, {"complex": [1]}, {"complex": "ab"}, {"complex": [None, "x"]}, {"complex": [10**400, 1]},
        {"array": "array0"}, {"array": "array1"}, {"array": "header"}, {"array": 0}, {"array": []}, {"array": None},
        {"dict": [[0, 1]]}, {"dict": [[True, 1]]}, {"dict": [1, [2]]}, {"dict": [[{}, 1]]}, {"dict": {"a": 1}},
        {"tuple": []}, {"tuple": [1, 2]}, {"tuple": {}}, {"tuple": "ab"}, {"tuple": [{"array": "array0"}]},
        {"map": {}, "arrays": {}}, {"map": 1, "arrays": 2}, {"state": {}, "origin": None}, {"state": [], "origin": 3},
        {"class": [], "fields": {}}, {"class": "SoftmaxKernel", "fields": []}, {"class": {}, "fields": None},
        *({"class": name, "fields": {}} for name in (*objects.classes(), *CLASSES)),
    ]  # fmt: skip


VALUES = hostile_values()


def places(value, path=()):
    """The paths to all values in a header."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def at_place(value, path):
    for key in path:
        value = value[key]
    return value


def mutate_header(source, others, rng):
    """Genuine arrays with a header that says something else."""
    header = json.loads(json.dumps(source.header))
    for _ in range(pick(rng, (1, 1, 1, 2, 3))):
        paths = list(places(header))[1:]
        if not paths:
            break
        path = pick(rng, paths)
        parent, key = at_place(header, path[:-1]), path[-1]
        theirs = pick(rng, others).header
        kind = rng.integers(10)
        if kind <= 3:
            parent[key] = pick(rng, VALUES)
        elif kind == 4:
            del parent[key]
        elif kind == 5 and isinstance(parent, dict):
            new = pick(
                rng, ("x", "", "class", "fields", "array", "tuple", "dict", "map", "state", "log_row_weights", "rows")
            )
            parent[new] = parent.pop(key) if rng.random() < 0.5 else parent[key]
        elif kind == 6:
            classes = [path for path in places(header) if path and path[-1] == "class"]
            if classes:
                path = pick(rng, classes)
                at_place(header, path[:-1])["class"] = pick(rng, (*objects.classes(), *CLASSES))
        elif kind == 7:
            parent[key] = at_place(theirs, pick(rng, list(places(theirs))))
        elif kind == 8:
            path = pick(rng, paths)
            if isinstance(parent[key], int | float | str):
                parent[key] = json.loads(json.dumps(at_place(header, path)))
        elif isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = pick(rng, (-parent[key], parent[key] + 1, 2 * parent[key], float(parent[key]), 10**9, 10**15))
        header = json.loads(json.dumps(header))  # nothing shared
    text = json.dumps(header)
    kind = rng.integers(20)
    if kind == 0:
        at = int(rng.integers(len(text)))
        text = text[:at] + pick(rng, ("}", "{", "[", '"', ",", "\\u", "NaN", "1e999", "0", "é")) + text[at:]
    elif kind == 1:
        text = text[: int(rng.integers(len(text)))]
    elif kind == 2:
        text = text.replace('"fields": {', '"fields": {"x": 1, "x": 2, ', 1)
    elif kind == 3:
        text = text.replace('"version": 1', '"version": 1, "version": ' + pick(rng, ("1", "2")), 1)
    elif kind == 4:
        opening, closing = pick(rng, (("[", "]"), ('{"tuple": [', "]}"), ('{"a":', "}")))
        depth = pick(rng, (500, 100_000))
        text = '{"format": "randfeat", "version": 1, "object": ' + opening * depth + "1" + closing * depth + "}"
    elif kind == 5:
        text = text.replace("1", "1" + "0" * pick(rng, (30, 5000)), 1)
    encoded = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        encoded = pick(rng, (b"\xef\xbb\xbf" + encoded, encoded.replace(b"a", b"\xff", 1), text.encode("utf-16"), b""))
    return whole(source.entries, encoded)


LEVELS = {"bytes": mutate_bytes, "entries": mutate_entries, "header": mutate_header}
