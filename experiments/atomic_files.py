"""Files that are there entirely or not at all, whenever the process or the machine stops."""

from pathlib import Path

from randfeat.storage.archive import replacing

__all__ = ["replacing", "write_text"]


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
