"""speed: layers agree over methods and backends, memory is counted, and verdicts follow the slopes."""

import dataclasses
import importlib.metadata
import time

import numpy as np
import pytest

import randfeat as rf
from experiments import speed
from experiments.backends import to_host
from experiments.clocks import log_slope, timed
from experiments.provenance import distribution
from experiments.speed.layers import BACKWARD, EXACT, FORWARD, IDENTITY, WHOLE, Layer, softmax_attention_vjp
from experiments.speed.measure import TimeCell, cells, methods, peak_bytes, traced
from experiments.speed.verdicts import crossing, verdicts
from tests.running import run_in_memory

TINY = dataclasses.replace(
    speed.EXPERIMENT.quick,
    dim=8,
    num_features=(8, 16),
    lengths=(32, 64, 1024, 2048, 4096),
    longest_exact=64,
    longest_whole=64,
    num_rounds=1,
)
METHODS = [*methods(TINY)]


def layer_of(method, backend="numpy", length=40, seed=0):
    return Layer.of(method, length, 8, backend, rng=np.random.default_rng(seed))


def outputs(layer, direction):
    return [np.asarray(array) for array in layer.call(direction)()]


# layers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_the_layer_are_its_differences(method):
    layer = layer_of(method)
    double = dataclasses.replace(
        layer,
        x=layer.x.astype(np.float64),
        cotangent=layer.cotangent.astype(np.float64),
        weights=tuple(matrix.astype(np.float64) for matrix in layer.weights),
        phi=None if layer.phi is None else layer.phi.to(np.zeros(1)),
    )
    output, *gradients = outputs(double, BACKWARD)
    np.testing.assert_array_equal(output, outputs(double, FORWARD)[0])
    arguments, rng = [double.x, *double.weights], np.random.default_rng(1)
    for position, gradient in enumerate(gradients):
        step = 1e-6 * rng.standard_normal(arguments[position].shape)
        ends = []
        for sign in (1, -1):
            moved = [array + sign * step if i == position else array for i, array in enumerate(arguments)]
            there = dataclasses.replace(double, x=moved[0], weights=tuple(moved[1:]))
            ends.append(np.sum(double.cotangent * outputs(there, FORWARD)[0]))
        assert (ends[0] - ends[1]) / 2 == pytest.approx(np.sum(gradient * step), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_backends_give_the_numbers_of_numpy(backend):
    pytest.importorskip(backend)
    for method in (EXACT, WHOLE, IDENTITY, METHODS[0]) if backend == "jax" else METHODS:
        for direction in (FORWARD, BACKWARD):
            here, there = (outputs(layer_of(method, name), direction) for name in ("numpy", backend))
            assert len(here) == len(there) == (1 if direction == FORWARD else 6)
            for a, b in zip(here, there, strict=True):
                np.testing.assert_allclose(b, a, atol=2e-5 * max(1.0, np.max(np.abs(a))))


def test_exact_attention_is_one_whether_in_blocks_or_not():
    exact, whole = (outputs(layer_of(method), BACKWARD) for method in (EXACT, WHOLE))
    for a, b in zip(exact, whole, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.max(np.abs(a))))
    arrays = np.random.default_rng(2).standard_normal((4, 30, 5))
    for a, b in zip(softmax_attention_vjp(*arrays, block=7), softmax_attention_vjp(*arrays, block=30), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_methods_are_what_they_are_called():
    linear, causal = (layer_of(f"{kind}, m = 16") for kind in ("linear", "causal"))
    assert (linear.is_causal, causal.is_causal, linear.phi.num_features) == (False, True, 16)
    first = outputs(causal, FORWARD)[0][0]
    np.testing.assert_allclose(first, causal.x[0] @ causal.weights[2] @ causal.weights[3], atol=1e-5)
    assert not np.allclose(first, outputs(linear, FORWARD)[0][0], atol=1e-2)
    near = rf.softmax_attention(*(linear.x @ matrix for matrix in linear.weights[:3])) @ linear.weights[3]
    np.testing.assert_array_equal(outputs(layer_of(EXACT), FORWARD)[0].shape, near.shape)


# clocks --------------------------------------------------------------------------------------------------------------


def test_processor_time_does_not_pass_in_sleep():
    seconds = timed({"sleeps": lambda: time.sleep(0.02), "works": lambda: sum(range(100_000))}, rounds=3)
    assert seconds["sleeps"].wall >= 0.02 > 2 * seconds["sleeps"].processor
    assert seconds["works"].processor > 0


def test_slope_of_a_power_is_its_exponent():
    sizes = [1, 2, 4, 8]
    assert log_slope(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert np.isnan(log_slope([1], [1.0]))


def test_memory_is_what_is_allocated():
    assert traced(lambda: [np.ones(10**6) for _ in range(3)]) == pytest.approx(24e6, rel=0.01)
    length = 300
    whole, blocks = (peak_bytes(layer_of(method, length=length), FORWARD) for method in (WHOLE, IDENTITY))
    assert whole >= 2 * 4 * length**2
    assert 3 * 4 * 8 * length <= blocks < 4 * length**2


def test_memory_of_torch_is_what_its_allocator_gave():
    pytest.importorskip("torch")
    whole, alone = (peak_bytes(layer_of(method, "torch", length=300), FORWARD) for method in (WHOLE, IDENTITY))
    assert 2 * 4 * 300**2 <= whole < 5 * 4 * 300**2
    assert 3 * 4 * 8 * 300 <= alone < 4 * 300**2


# the experiment ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    return run_in_memory(speed.EXPERIMENT, TINY)


def test_runs_and_draws(results):
    assert set(speed.EXPERIMENT.plot(results)) == {"speed", "speed_memory"}
    assert len(speed.EXPERIMENT.summaries(results.tables, TINY)) == 4
    assert len({cell.key for cell in cells(TINY)}) == len(cells(TINY)) == 4
    assert {row["method"] for row in results.tables["times"]} == set(METHODS)
    assert all(row["processor"] >= 0 < row["wall"] for row in results.tables["times"])
    rows = TimeCell(FORWARD, 0).measure(TINY)["times"]
    assert [list(row) for row in rows] == [list(row) for row in results.tables["times"][: len(rows)]]
    # memory is a function of the settings, timings are not
    again = speed.EXPERIMENT.cells(TINY)[-2].measure(TINY)["memory"]
    first = results.tables["memory"][: len(again)]
    assert [row["bytes"] for row in again] == pytest.approx([row["bytes"] for row in first], rel=0.1, abs=50_000)


def tables_growing(power, settings, *, cells=3):
    """Times and memory that grow with a power for each method, forward and with backward."""
    times, memory = [], []
    for method in methods(settings):
        for direction in (FORWARD, BACKWARD):
            for length in settings.lengths:
                value = length ** power(method)
                key = {"direction": direction, "method": method, "length": length}
                times += [{**key, "cell": cell, "wall": 9 * value, "processor": value} for cell in range(cells)]
                memory.append({**key, "bytes": value})
    return {"times": times, "memory": memory}


@pytest.mark.parametrize(
    ("linear", "exact", "whole", "good"),
    [
        (1.0, 2.0, 2.0, {"linear", "exact", "whole"}),
        (1.4, 2.0, 2.0, {"exact", "whole"}),
        (1.0, 1.3, 2.0, {"linear", "whole"}),
        (1.0, 2.0, 1.5, {"linear", "exact"}),
    ],
)
def test_growth_is_judged_by_its_slope(linear, exact, whole, good):
    settings = dataclasses.replace(TINY, longest_exact=4096, longest_whole=4096)
    tables = tables_growing(lambda name: {EXACT: exact, WHOLE: whole}.get(name, linear), settings)
    for verdict in verdicts(tables, settings):
        if "faster" in verdict.claim or (verdict.claim.startswith("exact, forward") and "memory" in verdict.claim):
            assert verdict.holds is None
        else:
            kind = "whole" if "whole" in verdict.claim else "exact" if "exact" in verdict.claim else "linear"
            assert verdict.holds is (kind in good), verdict


def test_too_few_lengths_are_reported_only(results):
    settings = dataclasses.replace(TINY, lengths=(32, 64, 1024), longest_exact=64)
    judged = verdicts(tables_growing(lambda name: 1.0, settings), settings)
    assert {verdict.holds for verdict in judged} == {None}
    exact = [v for v in verdicts(results.tables, TINY) if v.claim.startswith("exact") and "time" in v.claim]
    assert [verdict.holds for verdict in exact] == [None, None]


def test_one_slow_cell_does_not_decide():
    settings = dataclasses.replace(TINY, longest_exact=4096)
    tables = tables_growing(lambda name: 2.0 if name == EXACT else 1.0, settings)
    for row in tables["times"]:
        row["processor"] *= row["length"] if row["cell"] == 1 else 1
    assert all(verdict.holds for verdict in verdicts(tables, settings) if "time" in verdict.claim)


def test_crossing():
    lengths = (128, 256, 512, 1024)
    fast, slow = ({n: c * n**p for n in lengths} for c, p in ((300.0, 1), (1.0, 2)))
    assert crossing(slow, fast) == pytest.approx(300)
    assert crossing(fast, slow) == np.inf
    assert crossing({n: 2 * fast[n] for n in lengths}, fast) == 128


def test_arrays_of_a_device_are_fetched_and_its_package_is_named(monkeypatch):
    """CuPy by its manners: it converts only when asked, and its package has the version of CUDA in its name."""

    class OnDevice:
        def get(self):
            return np.ones(3, dtype=np.float32)

    assert to_host(OnDevice()).dtype == np.float64
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"cupy": ["cupy-cuda12x"]})
    assert (distribution("cupy"), distribution("torch")) == ("cupy-cuda12x", "torch")
