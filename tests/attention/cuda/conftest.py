"""The CUDA kernels on a CPU, for NumPy arrays."""

import contextlib

import numpy as np
import pytest

from randfeat.attention.cuda import executor
from randfeat.attention.cuda.kernels import source
from tests.attention.cuda.emulator import Emulator, build, compiler


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if compiler() is None:
        pytest.skip("the CUDA kernels run on a CPU through a C++ compiler, and none is here")
    return build(tmp_path_factory.mktemp("cuda"), source())


@pytest.fixture
def emulate(monkeypatch):
    """Send what would go to a CUDA device to an emulator, for NumPy arrays."""

    def use(library):
        emulator = Emulator(library)
        monkeypatch.setattr(executor, "is_on_cupy", lambda x: isinstance(x, np.ndarray))
        monkeypatch.setattr(executor, "on_device_of", lambda x: contextlib.nullcontext())
        monkeypatch.setattr(executor, "launch_on_device", emulator)
        return emulator

    return use


@pytest.fixture
def emulator(emulate, library):
    return emulate(library)
