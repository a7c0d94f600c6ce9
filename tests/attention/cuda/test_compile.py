"""The CUDA kernels compile to machine code without a device, where NVIDIA's compiler library is installed."""

import ctypes
import importlib.util
import re
from pathlib import Path

import pytest

from randfeat.attention.cuda.kernels import SCALARS, WIDTHS, instances, source


@pytest.fixture(scope="module")
def nvrtc():
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    paths = sorted(path for folder in folders for path in folder.rglob("libnvrtc.so.*[0-9]"))
    if not paths:
        pytest.skip("needs no device, but the compiler: pip install nvidia-cuda-nvrtc-cu12")
    return ctypes.CDLL(str(paths[-1]))


def compiled(nvrtc, names, options):
    """The outcome of compiling these kernels, and what the compiler has to say."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source().encode(), b"kernels.cu", 0, None, None) == 0
    for name in names:
        assert nvrtc.nvrtcAddNameExpression(program, name.encode()) == 0
    outcome = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return outcome, log.value.decode()


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scalar", SCALARS.values())
def test_every_instance_compiles(nvrtc, scalar, width, architecture):
    """No warning; nothing spilled out of the registers; two blocks fit on a multiprocessor."""
    names = instances(scalar, width)
    options = (b"--std=c++17", b"-arch=" + architecture.encode(), b"-Xptxas", b"-v")
    outcome, log = compiled(nvrtc, names, options)
    assert outcome == 0, log
    assert "warning" not in log.lower()
    assert re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log) == [("0", "0")] * len(names)
    assert all(int(registers) <= 128 for registers in re.findall(r"Used (\d+) registers", log))
    assert all(int(size) <= 48 << 10 for size in re.findall(r"(\d+) bytes smem", log))


def test_mistakes_do_not_compile(nvrtc):
    outcome, log = compiled(nvrtc, ["read<float>"], (b"--std=c++17",))
    assert outcome != 0
    assert "error" in log
