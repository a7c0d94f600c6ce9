"""Without its library, a module of integrations says which extra it needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("torch", "torch", "torch"),
        ("jax", "jax", "jax"),
        ("transformers", "transformers", "transformers"),
        ("sklearn", "sklearn", "sklearn"),
        ("dask", "dask", "dask"),
    ],
)
def test_message_names_the_extra(module, library, extra):
    code = f"import sys; sys.modules[{library!r}] = None; import randfeat.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: randfeat.integrations.{module} needs ")
    assert f"pip install '.[{extra}]'" in last
    assert last.endswith("in a clone of randfeat.")


ROOT = Path(__file__).parents[2]
TEXTS = sorted(
    path
    for folder, pattern in (("", "*.md"), ("docs", "**/*.md"), ("randfeat", "**/*.py"), ("experiments", "**/*.py"))
    for path in (ROOT / folder).glob(pattern)
    if "_build" not in path.parts
)


def test_extras_are_installed_from_a_clone_and_exist():
    """No index has the package: a command with its name finds nothing, or something else."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in TEXTS)
    assert not re.search(r"pip install [^`\n]*randfeat\[", text)
    named = {
        name for names in re.findall(r"pip install [^`\n]*'\.\[([a-z0-9,]+)\]'", text) for name in names.split(",")
    }
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {"torch", "jax", "dask", "sklearn"} <= named
    assert named <= set(extras)
