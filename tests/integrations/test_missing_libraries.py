"""Without its library, a module of integrations says which extra it needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import randfeat as rf

LIBRARIES = {
    "torch": "torch",
    "torch_autograd": "torch",
    "jax": "jax",
    "jax_autograd": "jax",
    "transformers": "transformers",
    "sklearn": "sklearn",
    "dask": "dask",
}
"""Modules of integrations, and the library of each, which is the name of its extra, too."""

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({libraries}))
import randfeat as rf
for module in {modules}:
    try:
        getattr(rf.integrations, module)
    except ImportError as error:
        print(error)
"""


def test_messages_name_the_extra():
    assert sorted(LIBRARIES) == sorted(rf.integrations.__all__)
    code = WITHOUT.format(libraries=list(LIBRARIES.values()), modules=list(LIBRARIES))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    messages = done.stdout.splitlines()
    for (module, extra), message in zip(LIBRARIES.items(), messages, strict=True):
        assert message.startswith(f"randfeat.integrations.{module} needs "), message
        assert message.endswith(f"run pip install '.[{extra}]' in a clone of randfeat."), message


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
