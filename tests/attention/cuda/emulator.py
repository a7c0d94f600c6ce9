"""The CUDA kernels on a CPU: compiled by a C++ compiler, launched through ctypes, on NumPy arrays."""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np

from randfeat.attention.cuda.kernels import instances, source

HERE = Path(__file__).parent
COMPILERS = ("g++", "c++", "clang++")
BUILDS = [("float", 4), ("float", 8), ("double", 4), ("double", 8), ("Half", 4), ("BFloat16", 4)]
OUTCOMES = {1: "threads wait at different barriers", 2: "no such kernel", 3: "another number of parameters"}

ENTRY = """
template <class H> void round_trip(const float* from, float* to, long long count) {
    for (long long i = 0; i < count; ++i) {
        H half;
        store(&half, from[i]);
        to[i] = number(half);
    }
}
extern "C" void rounded(const float* from, float* to, long long count, bool brain) {
    (brain ? round_trip<BFloat16> : round_trip<Half>)(from, to, count);
}

extern "C" int launch(const char* name, int count, long long blocks, void** values, bool descending, int skipped) {
    for (const emulated::Kernel& kernel : KERNELS) {
        if (std::string(kernel.name) != name) continue;
        if (kernel.count != count) return 3;
        emulated::body = kernel.body;
        emulated::arguments = values;
        emulated::skipped_line = skipped;
        for (long long block = 0; block < blocks; ++block) {
            blockIdx.x = static_cast<unsigned int>(block);
            if (emulated::run_block(descending) != emulated::NONE) return 1;
        }
        return 0;
    }
    return 2;
}
"""


def compiler():
    """The path of a C++ compiler, or None."""
    return next((path for path in map(shutil.which, COMPILERS) if path), None)


def build(folder, cuda, builds=BUILDS, options=("-O1",)):
    """The shared library of some kernels of a source in `folder`."""
    names = sorted({name for scalar, width in builds for name in instances(scalar, width)})
    rows = ",\n".join(f'    {{"{name}", &emulated::unpack<&{name}>, emulated::count(&{name})}}' for name in names)
    table = f"static const emulated::Kernel KERNELS[] = {{\n{rows}\n}};\n"
    parts = [
        f'#include "{HERE / "emulator.hpp"}"\n#line 1',
        for_cpu(cuda),
        f'#include "{HERE / "half.hpp"}"',
        table,
        ENTRY,
    ]
    program, library = folder / "kernels.cpp", folder / "kernels.so"
    program.write_text("\n".join(parts))
    flags = ["-std=c++17", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-U_FORTIFY_SOURCE"]
    command = [compiler(), *flags, *options, str(program), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


def for_cpu(cuda):
    """Declarations in shared memory, in the words of the emulator."""
    return re.sub(r"__shared__ (.+) (\w+);", r"\1& \2 = emulated::shared<\1>();", cuda)


def barriers():
    """The lines of the source that have a barrier."""
    return [number for number, line in enumerate(source().splitlines(), 1) if re.search(r"__syncthreads\(\)", line)]


class Emulator:
    """Launches kernels as the device does; in descending order of threads, and without one barrier, if asked to."""

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))
        self.descending, self.skipped, self.launched = False, 0, []

    def __call__(self, kernel, blocks, *arguments):
        self.launched.append(kernel)
        memory = [np.array([x.ctypes.data if isinstance(x, np.ndarray) else x]) for x in arguments]
        values = (ctypes.c_void_p * len(memory))(*(cell.ctypes.data for cell in memory))
        name = ctypes.c_char_p(kernel.encode())
        settings = ctypes.c_bool(self.descending), self.skipped
        outcome = self.library.launch(name, len(memory), ctypes.c_longlong(blocks), values, *settings)
        assert outcome == 0, f"{kernel}: {OUTCOMES[outcome]}"

    def rounded(self, x, *, brain):
        """Float32 numbers, rounded to half precision and back by the conversions of the kernels."""
        out = np.empty_like(x)
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (x, out))
        self.library.rounded(*pointers, ctypes.c_longlong(x.size), ctypes.c_bool(brain))
        return out
