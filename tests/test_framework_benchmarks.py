"""The benchmarks of tensors, JAX arrays and generation: contenders compute the same, goals can be missed."""

import numpy as np
import pytest

from experiments.benchmarks import generation, jax_tables, peers, torch_calls, torch_tables
from experiments.benchmarks.timing import Ratio
from experiments.benchmarks.torch_calls import BOTH, FORWARD, GENERIC, NUMPY
from experiments.benchmarks.workload import Workload
from tests.arrays import to_numpy

MIB = 1 << 20


@pytest.fixture
def work(monkeypatch):
    """Small inputs, one thread for all, and one chunk size to choose from."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", "1")
    monkeypatch.setattr(peers, "CHUNKS", (64,))
    yield Workload.of(128)
    torch.set_num_threads(threads)


def close(x, y):
    np.testing.assert_allclose(to_numpy(x), to_numpy(y), rtol=0, atol=1e-4 * np.abs(to_numpy(y)).max())


@pytest.mark.parametrize("is_causal", [False, True])
def test_tensors_and_arrays_give_the_same(work, is_causal):
    calls, notes = torch_calls.forward_calls([NUMPY, peers.SDPA], work, is_causal=is_causal)
    assert list(calls) == [FORWARD, NUMPY, peers.SDPA]
    assert notes == []
    close(calls[FORWARD](), calls[NUMPY]())
    with pytest.raises(AssertionError):
        close(calls[peers.SDPA](), calls[NUMPY]())


@pytest.mark.parametrize("is_causal", [False, True])
def test_contenders_have_the_same_gradients_but_exact_attention(work, is_causal):
    calls = torch_calls.gradient_calls(work, is_causal=is_causal)
    ours = calls[BOTH]()
    expected = work.attend_and_differentiate(is_causal=is_causal)
    assert len(ours) == len(expected) == 4
    for name in (BOTH, GENERIC, torch_calls.FAVOR):
        for x, y in zip(calls[name](), expected, strict=True):
            close(x.detach(), y)
    assert len(calls[peers.SDPA]()) == 4


def test_what_is_saved_for_the_backward_pass_has_the_inputs(work):
    assert torch_calls.saved_bytes(work, is_causal=False) >= 3 * work.query.nbytes


@pytest.mark.parametrize("is_causal", [False, True])
def test_contenders_of_jax_compute_what_we_compute(is_causal, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr(jax_tables, "CHUNK", 64)
    work = Workload.of(128)
    calls = jax_tables.jax_calls(work, is_causal=is_causal)
    for name in (jax_tables.EAGER, jax_tables.JIT, jax_tables.NAIVE):  # the generic pass takes seconds to compile
        close(calls[name](), calls[jax_tables.NUMPY]())
    close(np.swapaxes(to_numpy(calls[jax_tables.HOST]()), -3, -2), calls[jax_tables.NUMPY]())


def just_met(bounds):
    """Times of a length at which our time is the bound and that of others 1."""
    return {4096: {name: [seconds] * 3 for name, seconds in bounds.items()}}


@pytest.mark.parametrize("is_causal", [False, True])
def test_goals_of_tensors_can_be_missed(is_causal):
    over = torch_tables.OVER_SDPA[is_causal, 4096]
    for factor, verdict in ((1.0, "met"), (1.01, "missed")):
        forward = just_met({FORWARD: factor * 1.25, NUMPY: 1.0, peers.SDPA: 1.25 / over})
        both = just_met({BOTH: factor * torch_tables.OVER_GENERIC[is_causal, 4096], GENERIC: 1.0, peers.SDPA: 9.0})
        goals = torch_tables.time_goals(forward, both, is_causal=is_causal)
        assert [goal.verdict for goal in goals] == [verdict, verdict, verdict, "reported"]
    table = torch_tables.time_table("t", FORWARD, forward)
    assert table.rows[0] == (f"{FORWARD} [ms]", "1262.5")


def test_goals_of_memory_with_tensors_can_be_missed():
    def record(workload, length, extra, saved):
        outputs = 4 * MIB if workload == BOTH else MIB
        return {"workload": workload, "length": length, "is_causal": True, "extra": extra, "outputs": outputs} | {
            "saved": saved
        }

    records = [
        record(FORWARD, 8, 99 * MIB, None),
        record(BOTH, 8, 99 * MIB, 3.7 * MIB),
        record(FORWARD, 16, 64 * MIB, None),
        record(BOTH, 16, 65 * MIB, None),
        record(peers.SDPA, 16, 99 * MIB, None),
    ]
    verdicts = [goal.verdict for goal in torch_tables.memory_goals(records)]
    assert verdicts == ["missed", "met", "missed"]  # 3.7 over 3 inputs; the largest length
    assert torch_tables.memory_table(records).rows[1] == (f"{BOTH}, causal", "8", "4", "99.0", "1.23")


def test_goals_of_jax_can_be_missed():
    for factor, verdict in ((1.0, "met"), (1.01, "missed")):
        times = just_met(
            {
                jax_tables.EAGER: factor * 1.3,
                jax_tables.NUMPY: 1.0,
                jax_tables.HOST: factor * 0.5,
                jax_tables.JIT: 1.0,
                jax_tables.GENERIC: 1.0,
                jax_tables.NAIVE: 1.0,
            }
        )
        verdicts = [goal.verdict for goal in jax_tables.time_goals(times, is_causal=True)]
        assert verdicts == [verdict, verdict, "reported", "reported"]
    assert jax_tables.time_table(times, is_causal=True).rows[1][0] == jax_tables.HOST


def generated(short, long, exact):
    return {
        256: {generation.SDPA: [1.0] * 3, generation.SUMS: [short] * 3, generation.MERGED: [short] * 3},
        4096: {generation.SDPA: [exact] * 3, generation.SUMS: [long] * 3, generation.MERGED: [long] * 3},
    }


@pytest.mark.parametrize(
    ("times", "missed"),
    [
        (generated(1.0, 1.2, 2.0), []),
        (generated(1.0, 1.3, 2.0), ["randfeat, StateCache: time after 4096"]),
        (generated(1.0, 1.1, 1.0), ["randfeat, StateCache over SDPA, DynamicCache, after 4096"]),
    ],
)
def test_goals_of_generation_can_be_missed(times, missed):
    goals = generation.goals(times)
    found = [goal.what for goal in goals if goal.verdict == "missed"]
    assert len(found) == len(missed)
    assert all(what.startswith(start) for what, start in zip(found, missed, strict=True))
    assert any(isinstance(goal.measured, Ratio) for goal in goals)
    assert generation.time_table(times, 2).rows[0] == (
        generation.SDPA,
        "500.00",
        f"{500 * times[4096][generation.SDPA][0]:.2f}",
    )


def test_continuations_generate_after_what_was_generated(monkeypatch, work):
    pytest.importorskip("transformers")
    pytest.importorskip("randfeat.integrations.transformers.state_cache")
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    monkeypatch.setattr(generation, "SIZES", generation.SIZES | small | {"vocab_size": 50})
    calls = generation.continuations(generation.make_models(), 40, 3)
    for call in calls.values():
        assert call().shape == (1, 44)
        assert call().shape == (1, 47)
    assert bool((calls[generation.SDPA]() == calls[generation.MERGED]()).all())  # few keys: merged ones are exact
