"""Files of named arrays of numbers and a header in JSON: npz archives, written in one step and read with suspicion."""

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from randfeat._hints import short

LONGEST_HEAD = 4096
INTEGER = rb"(?:0|[1-9][0-9]{0,17})"
NPY = re.compile(  # what numpy.save writes before numbers; its reader takes more than that, and warns of some
    rb"\x93NUMPY\x01\x00(?P<length>..){'descr': '(?P<dtype>[<>|][biufc][0-9]{1,2})', 'fortran_order': (?:True|False), "
    rb"'shape': \((?P<shape>|%b,|%b(?:, %b)+)\), } *\n" % (INTEGER, INTEGER, INTEGER),
    re.DOTALL,
)


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a pipe, a device or a socket, whose end may never come; folders are refused by `open`."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, beside `path` until it is complete and on the disk, and takes its place.

    It has a name of its own until then, so that several writers of one path do not meet: the last one stays.
    """
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):  # a pipe, say, which keeps nothing
        with open(target, "wb") as file:
            yield file
        return
    beside = f"{target}.{secrets.token_hex(4)}.part"
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, beside)
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(beside)
        raise
    if hasattr(os, "O_DIRECTORY"):  # the new name is on the disk when its folder is; Windows has no such call
        with contextlib.suppress(OSError):  # a folder that may be written and not read
            folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def write(path: str, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write an archive, which replaces a file of that name in one step when it is complete."""
    text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), dtype=np.uint8)
    entries: dict[str, Any] = {"header": text, **arrays}
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"expected arrays of numbers, got objects in {', '.join(objects)}, which would be pickled.")
    with replacing(path) as file:
        np.savez(file, **entries)


def read(file: BinaryIO) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays that `write` wrote; every other file is an error, of whatever type.

    No length is believed that the file does not have the bytes for, so no small file takes much memory.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = [entry.filename.removesuffix(".npy") for entry in entries]
        if (
            len(set(names)) < len(names)
            or "header" not in names
            or not all(re.fullmatch("header|array[0-9]+", name) for name in names)
        ):
            raise ValueError(f"expected the entries header, array0, array1, ..., got {', '.join(names)}.")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, which those of randfeat.save are not.")
        if sum(entry.file_size for entry in entries) > file.seek(0, os.SEEK_END):
            raise ValueError("its entries are longer than itself.")
        arrays = {name: read_array(archive, entry) for name, entry in zip(names, entries, strict=True)}
    text = arrays.pop("header")
    if text.dtype != np.uint8 or text.ndim != 1:
        raise ValueError(f"expected a header of bytes, got {text.dtype} {text.shape}.")
    header = json.loads(text.tobytes().decode(), object_pairs_hook=without_repeats, parse_constant=no_constant)
    if not isinstance(header, dict):
        raise ValueError(f"expected a header of names and values, got {short(header)}.")
    return header, arrays


def read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """The array of one entry, in the byte order of this machine."""
    with archive.open(entry) as stream:
        found = NPY.match(stream.read(LONGEST_HEAD))
    if found is None or int.from_bytes(found["length"], "little") != found.end() - found.end("length"):
        raise ValueError(f"{entry.filename} is no array of numbers as numpy writes them.")
    dtype, shape = np.dtype(found["dtype"].decode()), tuple(map(int, found["shape"].replace(b",", b" ").split()))
    if found.end() + math.prod(shape) * dtype.itemsize != entry.file_size:
        raise ValueError(f"{entry.filename} has {entry.file_size} bytes, not those of {shape} numbers of {dtype}.")
    with archive.open(entry) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    return array.astype(dtype.newbyteorder("="), copy=False)


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys are different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("the header has a key twice.")
    return found


def no_constant(name: str) -> None:
    """ValueError for NaN and Infinity, which JSON does not have."""
    raise ValueError(f"the header has the number {name}.")
