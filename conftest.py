"""Examples of integrations are collected where their library is installed; what a test registers, it alone sees."""

import gc
from importlib.util import find_spec

import pytest

EXAMPLES = {
    "randfeat/attention/generic/causal_operator.py": ("torch",),
    "randfeat/attention/torch/operators.py": ("torch",),
    "randfeat/integrations/torch.py": ("torch",),
    "randfeat/integrations/torch_compressed.py": ("torch",),
    "randfeat/integrations/torch_compressed_operator.py": ("torch",),
    "randfeat/integrations/torch_autograd.py": ("torch",),
    "randfeat/integrations/jax.py": ("jax",),
    "randfeat/integrations/jax_autograd.py": ("jax",),
    "randfeat/integrations/jax_callback.py": ("jax",),
    "randfeat/integrations/transformers": ("torch", "transformers"),
    "randfeat/integrations/sklearn": ("sklearn",),
    "randfeat/integrations/dask.py": ("dask",),
    "randfeat/integrations/dask_blocks.py": ("dask",),
    "randfeat/plotting": ("matplotlib",),
    "docs/integrations.md": ("torch", "jax", "sklearn", "dask"),
    "docs/transformers.md": ("torch", "transformers"),
    "docs/larger_than_memory.md": ("dask",),
    "docs/coming_from/performer_pytorch.md": ("torch",),
    "docs/coming_from/gpytorch.md": ("torch",),
    "docs/coming_from/sklearn.md": ("sklearn",),
    "docs/faq.md": ("torch",),
}

SCRIPTS = ["docs/conf.py", "docs/published"]  # without examples; to collect them would run them

collect_ignore = SCRIPTS + [path for path, libraries in EXAMPLES.items() if not all(map(find_spec, libraries))]


@pytest.fixture(autouse=True)
def own_registrations():
    """Classes that a test or an example registers are forgotten after it, also as subclasses."""
    from randfeat.couplings.base import _BY_NAME
    from randfeat.storage.registry import _NAMED, _REGISTERED

    tables = (_BY_NAME, _NAMED, _REGISTERED)
    before = [dict(table) for table in tables]
    yield
    if [*tables] != before:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
        gc.collect()


def pytest_collection_finish():
    """What was imported and collected stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each worker of pytest-xdist begins with a part of the suite in its order, and takes over from others when idle.

    So the tests of a file run in one process, which compiles and draws once what they share.
    """
    if config.getoption("dist") != "load":  # another way was asked for
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)
