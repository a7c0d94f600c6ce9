"""The benchmarks: how they time, what they conclude, and that the contenders compute the same. No timing is a test."""

import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import randfeat as rf
from experiments.benchmarks import __main__ as command_line
from experiments.benchmarks import attention, compressed, decoding, machine, markdown, memory, peers, probe, scaling
from experiments.benchmarks.goals import Goal, goal_table
from experiments.benchmarks.timing import FEW_ROUNDS, LONGEST, Ratio, interleaved, medians, ratio
from experiments.benchmarks.workload import BATCH, DIM, FEATURES, HEADS, Workload
from experiments.results import Summary
from randfeat.cli import roofline

DOCS = Path(__file__).parents[1] / "docs"
MIB = 1 << 20


class Weather:
    """A clock that only calls and pauses move."""

    def __init__(self):
        self.now, self.calls, self.pauses = 0.0, [], 0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.pauses += 1

    def contender(self, name, seconds, first=0.0):
        def call():
            self.now += seconds if name in self.calls else seconds + first
            self.calls.append(name)

        return call


def test_calls_are_interleaved_and_neither_warm_up_nor_pauses_are_timed():
    weather = Weather()
    contenders = {"a": weather.contender("a", 0.5, first=9.0), "b": weather.contender("b", 2.0)}
    times = interleaved(contenders, 5, clock=weather.clock, sleep=weather.sleep)
    assert times == {"a": pytest.approx([0.5] * 5), "b": pytest.approx([2.0] * 5)}
    assert weather.calls == ["a", "a", "b", "b"] + ["a", "a", "b"] * 5  # an untimed call before a short one
    assert weather.pauses == 2 + 2 * 5


def test_who_takes_long_takes_part_in_a_few_rounds_but_a_slow_first_call_is_no_reason():
    weather = Weather()
    contenders = {
        "slow": weather.contender("slow", LONGEST + 1),
        "compiled": weather.contender("compiled", 0.1, first=10 * LONGEST),
    }
    times = interleaved(contenders, 7, clock=weather.clock, sleep=weather.sleep)
    assert {name: len(values) for name, values in times.items()} == {"slow": FEW_ROUNDS, "compiled": 7}


def test_a_ratio_is_that_of_the_medians_with_the_quartiles_of_the_rounds():
    times = {"over": [2.0, 4.0, 6.0, 8.0, 10.0], "under": [1.0, 1.0, 2.0, 2.0, 100.0]}
    assert medians(times) == {"over": 6.0, "under": 2.0}
    assert ratio(times, "over", "under") == Ratio(3.0, 2.0, 4.0)  # rounds: 2, 4, 3, 4, 0.1
    assert ratio({"over": [3.0], "under": [2.0, 5.0, 5.0]}, "over", "under") == Ratio(0.6, 1.5, 1.5)


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (Goal("", 4.0, 4.0), "met"),
        (Goal("", 3.99, 4.0), "missed"),
        (Goal("", 1.4, 1.4, at_least=False), "met"),
        (Goal("", 1.41, 1.4, at_least=False), "missed"),
        (Goal("", Ratio(3.9, 3.8, 4.2), 4.0), "missed"),  # the median decides, not a quartile
        (Goal("", float("nan"), 4.0), "missed"),
        (Goal("", float("nan"), 4.0, at_least=False), "missed"),
        (Goal("", 0.1), "reported"),
        (Goal("", None, 4.0), "not measured"),
        (Goal("", None), "not measured"),
    ],
)
def test_a_goal_can_be_missed(goal, verdict):
    assert goal.verdict == verdict
    assert goal_table("t", [goal]).rows[0][-1] == verdict


def test_a_goal_is_written_with_its_bound_unit_and_quartiles():
    assert Goal("a", Ratio(4.006, 3.9, 4.2), 4.0).row == ("a", "4.01", "3.90 to 4.20", ">= 4.00", "met")
    assert Goal("b", 70.4, 64, False, unit="MiB", digits=0).row == ("b", "70 MiB", "-", "<= 64 MiB", "missed")


def doctored_attention(is_causal):
    """Times at which every bound is just kept, by length and contender."""
    columns = {length: {attention.OURS: [1.0] * 3} for length in attention.FIELDS[is_causal]}
    for (name, length), bound in attention.BOUNDS[is_causal].items():
        columns[length][name] = [bound or 1.0] * 3
    return columns


@pytest.mark.parametrize("is_causal", [False, True])
def test_every_bound_against_a_peer_is_on_someone_who_takes_part_and_can_be_missed(is_causal):
    bounds = attention.BOUNDS[is_causal]
    assert all(name in attention.FIELDS[is_causal][length] for name, length in bounds)
    goals = attention.attention_goals(doctored_attention(is_causal), is_causal=is_causal)
    assert Counter(goal.verdict for goal in goals) == Counter(
        "reported" if bound is None else "met" for bound in bounds.values()
    )
    for number, ((name, length), bound) in enumerate(bounds.items()):
        columns = doctored_attention(is_causal)
        columns[length][name] = [0.99 * (bound or 1.0)] * 3
        after = attention.attention_goals(columns, is_causal=is_causal)
        assert [i for i, goal in enumerate(after) if goal.verdict == "missed"] == ([number] if bound else [])


def test_a_missing_peer_is_not_measured_and_a_dash_in_the_table():
    columns = doctored_attention(False)
    del columns[4096][peers.COMPILED]
    verdicts = {goal.what: goal.verdict for goal in attention.attention_goals(columns, is_causal=False)}
    assert verdicts[f"{peers.COMPILED}, full, L=4096"] == "not measured"
    table = attention.table(columns, is_causal=False)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows[peers.COMPILED] == ("-", "1.00", "-", "2.00")
    assert rows["randfeat [ms]"] == ("1000.0",) * 4


LENGTHS, VARIED = scaling.LENGTHS, scaling.VARIED
PARTS = {"": 1.0, "large": 1.3, "backward": 3.9, "one thread": 1.9, "torch forward": 4.0, "torch both": 16.0}


def doctored_scaling(**changes):
    """Times at which every goal is kept: a microsecond per token and head, causal 1.3, and ceilings to match."""
    exponential = 2 * roofline.REPEATS * roofline.BLOCK * 0.4e-6 / 512  # on two threads, 0.4 microseconds for 512
    product = 2 * roofline.SIZE**3 * 0.3e-6 / 132_096
    times = {roofline.PRODUCTS: [product] * 3, "np.exp": [2 * exponential] * 3, "np.exp2": [exponential] * 3}
    for kind in scaling.KINDS:
        for length in (1024, *LENGTHS):
            for part, factor in PARTS.items():
                seconds = 1e-6 * BATCH * HEADS * length * factor * (1.3 if kind == "causal" else 1.0)
                times[scaling.name(kind, length, part)] = [seconds] * 3
    return times | {name: [factor * value for value in times[name]] for name, factor in changes.items()}


def scaling_goals(times):
    """Verdicts by what they are about."""
    limits = roofline.Ceilings(times, 2)
    goals = [*scaling.length_goals(times, limits, LENGTHS), *scaling.variation_goals(times, VARIED)]
    return {goal.what: goal for goal in goals}


def test_the_roofline_is_that_of_the_formula():
    assert roofline.flops(64, 64, 256) == 132_096
    assert roofline.exponentials(256) == 512
    limits = roofline.Ceilings(doctored_scaling(), 2)
    assert roofline.roofline(limits, DIM, DIM, FEATURES) == pytest.approx(0.7e-6)
    assert scaling.share(doctored_scaling(), limits, 4096) == pytest.approx(70.0)
    assert "132.1 kflop and 512 exponentials" in scaling.ceiling_notes(limits, 2)[1]


@pytest.mark.parametrize(
    ("slower", "missed"),
    [
        ({}, []),
        ({"full, L=131072": 1.2}, ["longest over shortest", "share of the roofline, full, L=131072"]),
        ({"causal, L=16384": 1.2}, ["longest over shortest time per token, causal", "causal over full, L=16384"]),
        ({"full, L=4096, large": 1.1}, ["large inputs over small, full, L=4096"]),
        ({"causal, L=4096, large": 1.1}, ["large inputs over small, causal, L=4096"]),
        ({"full, L=16384, backward": 1.1}, ["forward and backward over forward, full, L=16384"]),
        ({"causal, L=4096, backward": 1.1}, ["forward and backward over forward, causal, L=4096"]),
        ({"full, L=4096, backward": 0.8}, ["longest over shortest time per token, forward and backward, full"]),
        ({"full, L=4096, one thread": 5.0, "causal, L=4096, torch both": 0.01}, []),
    ],
)
def test_every_goal_of_our_own_passes_can_be_missed(slower, missed):
    goals = scaling_goals(doctored_scaling(**slower))
    found = [what for what, goal in goals.items() if goal.verdict == "missed"]
    assert len(found) == len(missed)
    assert all(what.startswith(start) for what, start in zip(sorted(found), sorted(missed), strict=True))


def test_short_calls_and_single_lengths_decide_nothing():
    times = doctored_scaling(**{"causal, L=1024": 9.0})
    assert {goal.verdict for goal in scaling.variation_goals(times, (1024,))} == {"reported"}
    goals = scaling.length_goals(times, roofline.Ceilings(times, 2), (1024, 4096))
    assert [goal.what for goal in goals] == ["share of the roofline, full, L=4096"]


def test_a_share_above_the_roofline_is_not_a_success():
    times = doctored_scaling(**{roofline.PRODUCTS: 3.0})  # 0.9 + 0.4 microseconds
    goal = scaling_goals(times)["share of the roofline, full, L=4096"]
    assert (goal.row[1], goal.verdict) == ("130 %", "reported")


def test_the_table_of_ratios_names_contenders_that_take_part(work):
    contenders = set(scaling.own_calls(64, varied=True))
    for _, over_kind, over, under_kind, under in scaling.VARIATIONS:
        assert {scaling.name(over_kind, 64, over), scaling.name(under_kind, 64, under)} <= contenders
    rows = {row[0]: row[1:] for row in scaling.variation_table(doctored_scaling(), VARIED).rows}
    assert rows["causal over full"] == ("1.30", "1.30")
    assert rows["the same in torch, full"] == ("4.00", "4.00")
    times = {name: value for name, value in doctored_scaling().items() if "torch" not in name}
    assert scaling.variation_table(times, VARIED).rows[5][1:] == ("-", "-")


def record(extra, *, is_causal=False):
    return {"workload": probe.OURS, "length": 8, "is_causal": is_causal, "extra": extra, "outputs": 2 * MIB}


def test_goals_of_memory_can_be_missed_and_go_unmeasured():
    stream = {"length": 10, "peak": 1025 * MIB, "parts": [{"what": "p", "tokens": 10, "seconds": 0.001}]}
    goals = memory.memory_goals([record(64 * MIB), record(65 * MIB, is_causal=True), record(None)], stream)
    assert [goal.verdict for goal in goals] == ["met", "missed", "not measured", "missed"]
    assert memory.memory_goals([], stream | {"peak": None})[0].verdict == "not measured"
    table = memory.peak_table([record(3 * MIB), record(None)])
    assert [row[2:] for row in table.rows] == [("2", "3.0", "1.50"), ("2", "-", "-")]
    assert memory.stream_table(stream).rows == (("p", "10", "100.0"),)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are told by Linux only")
def test_the_peak_is_that_of_a_known_allocation_less_what_is_returned():
    def call():
        np.ones(96 * MIB // 8)  # freed at once
        return np.ones(64 * MIB // 8)

    def nothing():
        return np.ones(1)

    extra, outputs = probe.extra_peak(call)
    assert outputs == 64 * MIB
    assert extra == pytest.approx(32 * MIB, abs=4 * MIB)  # 96 MiB at the peak, of which 64 MiB are counted as outputs
    assert probe.extra_peak(nothing)[0] == pytest.approx(0, abs=4 * MIB)  # the peak before does not count


def test_a_process_of_its_own_measures_a_stream_of_every_token():
    command = [sys.executable, "-m", "experiments.benchmarks.probe", "stream", "1500"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=memory.ROOT, capture_output=True, check=True, env=environment)
    result = json.loads(done.stdout)
    assert [part["tokens"] for part in result["parts"]] == [256, 512, 732]
    assert not sys.platform.startswith("linux") or 20 * MIB < result["peak"] < 1024 * MIB


@pytest.fixture
def work(monkeypatch):
    """Small inputs, one thread for all, and nothing to tune."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", "1")
    monkeypatch.setattr(peers, "CHUNKS", (64,))
    monkeypatch.setattr(peers, "PERFORMER_CHUNKS", (64,))
    yield Workload.of(256)
    torch.set_num_threads(threads)


def peer(name, work, *, is_causal=False):
    calls, _ = peers.torch_peers([name], work, is_causal=is_causal)
    return calls[name]().numpy()


CLOSE = {"rtol": 0, "atol": 1e-4}  # outputs are of order 1


@pytest.mark.parametrize(("name", "is_causal"), [(peers.PLAIN, False), (peers.IN_PLACE, False), (peers.CHUNKED, True)])
def test_contenders_compute_what_we_compute(work, name, is_causal):
    theirs = peer(name, work, is_causal=is_causal)
    np.testing.assert_allclose(theirs, work.attend(is_causal=is_causal), **CLOSE)
    assert not np.allclose(theirs, work.attend(is_causal=not is_causal), **CLOSE)


@pytest.mark.parametrize("chunk", [64, 128, 256])
def test_every_chunk_that_is_tried_computes_the_same(work, chunk):
    theirs = peers.chunked_favor(*peers.tensors(work), chunk=chunk).numpy()
    np.testing.assert_allclose(theirs, work.attend(is_causal=True), **CLOSE)


@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_of_torch_are_ours(work, is_causal):
    theirs = [array.detach().numpy() for array in peers.torch_gradients(work, is_causal=is_causal)["both"]()]
    ours = work.attend_and_differentiate(is_causal=is_causal)
    for array, expected in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-4 * np.max(np.abs(expected)))


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_exact_contender_is_exact_attention(work, is_causal):
    expected = rf.softmax_attention(work.query, work.key, work.value, is_causal=is_causal)
    np.testing.assert_allclose(peer(peers.SDPA, work, is_causal=is_causal), expected, **CLOSE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("is_causal", [False, True])
def test_performer_computes_the_same_but_for_what_it_adds(work, is_causal):
    pytest.importorskip("performer_pytorch")
    rows = work.rows.astype(np.float64)
    query, key, value = (x.astype(np.float64) for x in (work.query, work.key, work.value))

    def features(x, axes):
        x = x * DIM**-0.25
        product = x @ rows.T
        return np.exp(product - np.vecdot(x, x)[..., None] / 2 - product.max(axes, keepdims=True)) + 1e-4

    queries = features(query, -1)
    weights = queries @ np.swapaxes(features(key, (-2, -1)), -1, -2)
    total = weights.sum(-1, keepdims=True)
    if is_causal:  # and 1e-6 to every sum over keys, whose features it divides by the square root of their number
        weights = np.tril(weights)
        total = weights.sum(-1, keepdims=True) + 1e-6 * FEATURES**0.5 * queries.sum(-1, keepdims=True)
    expected = weights @ value / total
    np.testing.assert_allclose(peer(peers.PERFORMER, work, is_causal=is_causal), expected, **CLOSE)


def test_peers_that_are_not_there_are_named(work, monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    calls, notes = peers.torch_peers([peers.COMPILED, peers.PLAIN], work, is_causal=False)
    assert list(calls) == [peers.PLAIN]
    assert notes == [f"{peers.COMPILED} is left out: no C++ compiler"]


def tables_of(text):
    """Tables as lists of rows of cells, split where a reader of Markdown splits."""
    blocks = [block.strip().split("\n") for block in text.split("\n\n") if block.startswith("|")]
    return [[re.split(r"(?<!\\)\|", line)[1:-1] for line in block] for block in blocks]


def test_sections_are_named_after_what_was_run():
    command = "python -m experiments.benchmarks attention scaling --markdown docs/page.md"
    assert "\n## Measured on a CPU: attention, scaling\n" in markdown.page(command, [], [], [], quick=False)
    assert "\n## Measured on a CPU\n" in markdown.page("command", [], [], [], quick=False)


def test_a_page_has_its_tables_whole_and_says_if_it_is_quick():
    summary = Summary("A|B <= *2*", ("what", "x|y"), (("a_b", "1.0"), ("c", "-")))
    text = markdown.page("command", [("Date", "today")], [summary, summary], ["a note"], quick=True)
    assert "quick run" in text
    assert "quick run" not in markdown.page("command", [], [summary], [], quick=False)
    first, second = tables_of(text)
    assert first == second
    assert [[cell.strip() for cell in row] for row in first] == [
        ["what", "x\\|y"],
        ["---", "---:"],
        ["a\\_b", "1.0"],
        ["c", "-"],
    ]
    levels = [len(line.split()[0]) for line in text.splitlines() if line.startswith("#")]
    assert levels[0] == 2
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_the_command_prints_and_writes_what_benchmarks_return(monkeypatch, tmp_path, capsys):
    def fake(*, quick, report):
        report("at work")
        return [goal_table("Speed", [Goal("ours", 3.0 if quick else 5.0, 4.0)])], ["[a note]"]

    monkeypatch.setattr(command_line, "BENCHMARKS", {"fake": fake})
    file = tmp_path / "page.md"
    assert command_line.main(["fake", "--quick", "--markdown", str(file)]) == 0
    printed, text = capsys.readouterr(), file.read_text(encoding="utf-8")
    assert "at work" in printed.err
    assert "[a note]" in printed.out
    assert "missed" in printed.out
    assert tables_of(text)[0][2] == [" ours ", " 3.00 ", " - ", " \\>= 4.00 ", " missed "]
    assert "python -m experiments.benchmarks fake --quick\n" in text
    assert platform.node() == "" or platform.node() not in dict(machine.description("1.0")).values()
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["fake", "--markdown", str(tmp_path / "nowhere" / "page.md")])


def test_the_page_includes_every_section_and_says_if_nothing_ran_on_a_gpu():
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    sections = {path.name for path in (DOCS / "benchmarks").glob("*.md")}
    assert {f"benchmarks/{name}" for name in sections} == set(re.findall(r"{include} (\S+)", page))
    assert ("Nothing has been run on a GPU" in page) == ("gpu.md" not in sections)
    for name in sections:
        for table in tables_of((DOCS / "benchmarks" / name).read_text(encoding="utf-8")):
            assert len({len(row) for row in table}) == 1
            assert len(table) > 2


def test_workloads_are_contiguous_and_of_the_length_asked_for():
    long = Workload.of(64, factor=2.5)
    plain = Workload.of(64)
    np.testing.assert_allclose(long.query, 2.5 * plain.query, rtol=1e-6)
    assert long.value.tobytes() == plain.value.tobytes()
    assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in (long.query, long.key, long.value))
    assert replace(plain, value=long.value).attend(is_causal=True).shape == (BATCH, HEADS, 64, DIM)


def test_the_tables_of_compressed_attention(monkeypatch):
    """All contenders, causal ones on one thread; the environment is as before."""
    monkeypatch.setattr(compressed, "HEADS", 1)
    monkeypatch.setattr(compressed, "PAUSE", 0.0)
    monkeypatch.setattr(compressed, "KEYS", (16,))
    monkeypatch.setattr(compressed, "CLUSTERS", (5,))
    monkeypatch.setattr(compressed, "QUICK_LENGTHS", (96,))
    monkeypatch.setitem(compressed.GOALS, ("clustered C=5", 96), 1e9)
    monkeypatch.delenv("RANDFEAT_NUM_THREADS", raising=False)
    lines = []
    tables, notes = compressed.compressed_tables(quick=True, report=lines.append)
    assert "RANDFEAT_NUM_THREADS" not in os.environ
    assert (len(tables), len(lines), notes) == (4, 3, [])
    names = [row[0] for row in tables[0].rows]
    assert {"exact", "clustered C=5", "cache D=16, made and read", "cache D=16, made with a fit"} <= set(names)
    assert [row[0] for row in tables[1].rows if "stream" in row[0]] == [
        f"stream D={rows}, w={window}" for rows, window in compressed.STREAMS
    ]
    assert {row[0] for row in tables[-1].rows} >= {f"exact over clustered C=5, L=96, {n} threads" for n in (1, 2)}
    assert {row[-1] for row in tables[-1].rows} <= {"missed", "reported"}


def test_steps_of_decoding_have_one_output_and_every_contender_takes_part():
    """The first steps: later ones of a decoder have seen the token before."""
    pytest.importorskip("torch")
    step = decoding.Step.of(2)
    expected, _ = step.attend()
    for output in (step.decode(), step.attend_generically()[0]):
        assert np.allclose(output, expected, rtol=1e-5, atol=1e-6)
    there = step.in_torch()
    assert np.allclose(there.decode(), there.attend()[0], rtol=1e-5, atol=1e-6)
    calls = step.calls((16, 32))
    assert list(calls)[:2] == [decoding.NUMPY, decoding.STATE]
    assert {decoding.TORCH, decoding.exact(16), decoding.exact(32)} <= set(calls)
    times = {name: [1e-3 * decoding.steps_of(name)] * 3 for name in calls}
    goals = decoding.step_goals(times, 1)
    assert [goal.value for goal in goals] == [pytest.approx(32.0)] * 2
    assert not any(goal.met for goal in goals)
    assert len(decoding.step_table(times, 1).rows) == len(calls)
