"""Finished cells on the disk, one file each: what an interrupted run has already measured.

A run is known by its fingerprint, the hash of everything that its numbers depend on (`experiments.provenance`). Its
cells are `FOLDER/FINGERPRINT/NAME-HASH.json`, so cells of other settings or other code are never found. Each file
carries a checksum and its own name; floats are stored bit for bit.
"""

import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.atomic_files import write_text
from experiments.cells import Measured
from experiments.results import to_json
from experiments.tables import Record, columnar, records

ABOUT = "run.json"


class DamagedCell(ValueError):
    """The file of a cell is not what was written; the message is one line."""


@dataclass(frozen=True)
class CellStore:
    """The cells of one run within a folder that other runs use, too.

    identity : everything that the numbers depend on.
    """

    folder: Path
    identity: Record

    @property
    def fingerprint(self) -> str:
        """Hash of the identity."""
        return digest(json.dumps(to_json(self.identity), sort_keys=True, default=repr))[:16]

    @property
    def own(self) -> Path:
        return self.folder / self.fingerprint

    def others(self) -> int:
        """How many other runs have cells here."""
        return sum(run != self.own for run in self.runs())

    def runs(self) -> list[Path]:
        """The folders of all runs, as far as they are ours."""
        return [path for path in self.folder.glob("*") if re.fullmatch("[0-9a-f]{16}", path.name) and path.is_dir()]

    def open(self) -> None:
        """Make the folder, with a file that says whose cells these are."""
        self.own.mkdir(parents=True, exist_ok=True)
        text = json.dumps(to_json(self.identity), indent=1, default=repr) + "\n"
        write_text(self.own / ABOUT, text)

    def clear(self) -> int:
        """Remove the cells of every run; returns their number."""
        number = 0
        for run in self.runs():
            for path in {*run.glob("*.json"), *run.glob("*.part"), *run.glob("*.checkpoint*")}:
                number += path.suffix == ".json" and path.name != ABOUT
                path.unlink()
            if not any(run.iterdir()):
                run.rmdir()
        return number

    def path(self, key: str) -> Path:
        """The file of a cell: its name as far as a file can have it, and a hash of all of it."""
        readable = re.sub(r"[^A-Za-z0-9.+-]+", "_", key)[:60]
        return self.own / f"{readable}-{digest(key)[:12]}.json"

    def checkpoint(self, key: str) -> Path:
        """Where a cell of many steps leaves what it has done so far."""
        return self.path(key).with_suffix(".checkpoint")

    def save(self, key: str, measured: Measured) -> None:
        tables = {name: columnar(rows) for name, rows in measured.tables.items()}
        content = {"key": key, "seconds": measured.seconds, "tables": tables}
        body = json.dumps(stored(content), allow_nan=False)
        write_text(self.path(key), json.dumps({"sha256": digest(body), "cell": body}) + "\n")

    def load(self, key: str) -> Measured | None:
        """A finished cell, or None where it is not stored; `DamagedCell` where its file is not as it was written."""
        path = self.path(key)
        try:
            outer = json.loads(path.read_bytes())
            if digest(outer["cell"]) != outer["sha256"]:
                raise DamagedCell(f"{path}: the checksum is wrong.")
            content = restored(json.loads(outer["cell"]))
            if content["key"] != key:
                raise DamagedCell(f"{path}: holds the cell {content['key']!r}.")
            return Measured({name: records(table) for name, table in content["tables"].items()}, content["seconds"])
        except FileNotFoundError:
            return None
        except DamagedCell:
            raise
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise DamagedCell(f"{path}: {error}") from error


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def stored(value: Any) -> Any:
    """The same content in JSON; floats that JSON does not have become their bits."""
    if isinstance(value, dict):
        return {name: stored(item) for name, item in value.items()}
    if isinstance(value, list):
        return [stored(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"bits": struct.pack(">d", value).hex()}
    return value


def restored(value: Any) -> Any:
    """The inverse of `stored`; no table or column is called "bits" alone with a string in it."""
    if isinstance(value, dict):
        if list(value) == ["bits"] and isinstance(value["bits"], str):
            return struct.unpack(">d", bytes.fromhex(value["bits"]))[0]
        return {name: restored(item) for name, item in value.items()}
    return [restored(item) for item in value] if isinstance(value, list) else value
