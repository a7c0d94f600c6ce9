"""The benchmark on a CUDA device says in one line why it does not run."""

import importlib.util
import types

import pytest

from experiments.benchmarks import gpu
from experiments.benchmarks.__main__ import main


def broken_driver():
    raise OSError("driver too old\nand more about it")


@pytest.mark.parametrize(
    ("count", "reason"),
    [(None, "not installed"), (lambda: 0, "finds none"), (broken_driver, "finds none: driver too old")],
    ids=["no CuPy", "no device", "no driver"],
)
def test_one_line_without_a_device(monkeypatch, capsys, count, reason):
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=count)))
    find = importlib.util.find_spec
    found = None if count is None else types.SimpleNamespace()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "cupy" else find(name))
    monkeypatch.setattr(gpu.importlib, "import_module", lambda name: cupy)
    assert main(["gpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert reason in printed.err
