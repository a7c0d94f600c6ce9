"""Modules that need a framework are looked into only where it is installed."""

from importlib.util import find_spec

collect_ignore = [
    f"randfeat/integrations/{name}_autograd.py" for name in ("torch", "jax") if find_spec(name) is None
]  # fmt: skip
