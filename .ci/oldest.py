"""Print the oldest supported versions of the required packages, and of those of the extras that are named.

`pip install $(python .ci/oldest.py test) -e .`; every requirement in pyproject.toml must have a lower bound.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENT = re.compile(r"([\w-]+)>=([\d.]+)")


def pinned(requirement: str) -> str:
    """`name==lower bound` of a requirement `name>=lower bound`."""
    found = REQUIREMENT.fullmatch(requirement)
    if found is None:
        raise SystemExit(f"pyproject.toml requires {requirement!r}, expected name>=oldest version.")
    return "{}=={}".format(*found.groups())


extras = (PROJECT["optional-dependencies"][name] for name in sys.argv[1:])
print(*sorted({pinned(requirement) for group in (PROJECT["dependencies"], *extras) for requirement in group}))
