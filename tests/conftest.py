"""Backends, seeds and settings shared by all tests."""
# ruff: noqa: E402 (threads and precision are set before the libraries are imported)

import importlib
import importlib.util
import os
import sys
import zlib
from importlib.metadata import version

# Before NumPy, torch and JAX are imported: one thread per worker of pytest-xdist, and float64 in JAX.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if importlib.util.find_spec("jaxlib"):
    # Compiling is all that tests of JAX take time for, and five times faster without optimization. XLA_FLAGS="" in the
    # environment tests the optimized code; test_jax_without_float64 runs that always.
    _flags = ["--xla_cpu_multi_thread_eigen=false", "--xla_backend_optimization_level=0"]
    _flags.append("--xla_llvm_disable_expensive_passes=true")
    if tuple(map(int, version("jaxlib").split(".")[:2])) >= (0, 7):  # older ones end the process at unknown flags
        _flags += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
    os.environ.setdefault("XLA_FLAGS", " ".join(_flags))

import hypothesis
import numpy as np
import pytest
from array_api_compat import array_namespace

hypothesis.settings.register_profile("randfeat", derandomize=True, deadline=None, max_examples=40, database=None)
hypothesis.settings.load_profile("randfeat")

BACKENDS = {
    "numpy": "",
    "array_api_strict": "pip install '.[test]'",
    "torch": "pip install '.[frameworks]'",
    "jax.numpy": "pip install '.[frameworks]'",
    "cupy": "pip install '.[cuda12]'",
}


def load_backend(name):
    """The array namespace of a library, or a skip that says how to get it."""
    try:
        module = importlib.import_module(name)
        array = module.zeros(1)
    except Exception as error:
        if name == "cupy" or isinstance(error, ImportError):
            pytest.skip(f"{name} is not usable here ({type(error).__name__}): {BACKENDS[name]}")
        raise
    if name == "torch":
        module.set_num_threads(1)
    return array_namespace(array)


def backend_params(*names):
    return [pytest.param(name, marks=[pytest.mark.gpu] if name == "cupy" else []) for name in names]


@pytest.fixture(params=backend_params(*BACKENDS))
def xp(request):
    """Every array library in turn, as an array API namespace."""
    return load_backend(request.param)


@pytest.fixture
def torch():
    load_backend("torch")
    return importlib.import_module("torch")


@pytest.fixture
def jax():
    load_backend("jax.numpy")
    return importlib.import_module("jax")


@pytest.fixture
def rng(request):
    """A generator with a seed of its own for every test, the same in every run."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def numbers_of_torch():
    """Random tensors of a test are the same in every run, whichever tests have run before in its process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def pyplot():
    """`matplotlib.pyplot` without a screen; its figures are closed after the test."""
    matplotlib = pytest.importorskip("matplotlib", reason="pip install '.[plot]'")
    before = matplotlib.get_backend()
    matplotlib.use("agg")
    yield importlib.import_module("matplotlib.pyplot")
    matplotlib.pyplot.close("all")
    matplotlib.use(before)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Docstrings of tests hold no examples; those that a test borrows from the library are run there."""
    here = os.path.dirname(__file__)
    items[:] = [i for i in items if not (isinstance(i, pytest.DoctestItem) and str(i.path).startswith(here))]
