"""Without its library, a module of integrations says which extra it needs."""

import subprocess
import sys

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
    assert f"pip install 'randfeat[{extra}]'" in last
