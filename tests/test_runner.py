"""Runs that are killed, interrupted, spread over workers, and resumed."""

import contextlib
import dataclasses
import functools
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import on_dask, provenance
from experiments import run as runs
from experiments.cell_store import CellStore, DamagedCell
from experiments.cells import Failure, Measured, ResumableCell, in_turn, measure
from experiments.command_line import main
from experiments.processes import in_processes
from experiments.registry import EXPERIMENTS
from experiments.results import Results, Verdict
from tests.cheap_experiment import EXPERIMENT, CheapCell, CheapSettings
from tests.running import run_in_memory

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and POSIX signals")
TABLES = ("numbers.csv", "others.csv")


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "cheap", EXPERIMENT)
    return EXPERIMENT


def run(settings, folder, **options):
    notes = []
    results = runs.run(EXPERIMENT, settings, folder, notify=notes.append, **options)
    return results, notes


def cell_files(folder):
    return sorted(path for path in folder.glob("cells/*/*.json") if path.name != "run.json")


def measured_cells(log):
    return [int(line) for line in log.read_text().split()] if log.exists() else []


# kills ---------------------------------------------------------------------------------------------------------------


class Server:
    """Runs command lines in processes of their own, which can be killed."""

    def __init__(self, process, folder):
        self.process, self.log, self.output = process, folder / "log", folder / "output"

    def start(self, *arguments):
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def code(self):
        return os.waitstatus_to_exitcode(int(self.process.stdout.readline()))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    places = {"CHEAP_LOG": str(folder / "log"), "OUTPUT": str(folder / "output")}
    environment = {**os.environ, **places, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command, pipe = [sys.executable, "-m", "tests.cheap_experiment"], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        yield Server(process, folder)


def finished_after(folder, number, child):
    """Wait until so many cells are stored, or the process is no more."""
    while len(cell_files(folder)) < number and process_exists(child):
        time.sleep(0.001)


def process_exists(child):
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return False
    return True


@posix
def test_ten_kills_lose_nothing_and_repeat_nothing(server, tmp_path):
    rng = random.Random(0)
    server.start("run", "cheap", "--out", str(tmp_path / "whole"))
    assert server.code() == 0
    assert measured_cells(server.log) == list(range(40))
    kills, attempt = 0, 0
    while kills < 10:  # of one run, unless the machine is so busy that it is done before
        attempt += 1
        folder, stored, killed = tmp_path / f"killed {attempt}", set(), 0
        server.log.unlink()
        while code := killed_at_random(server, folder, rng, resume=bool(killed), stored=len(stored), last=kills == 10):
            assert code == -signal.SIGKILL
            kills, killed = kills + 1, killed + 1
            files = set(cell_files(folder))
            assert stored <= files  # no finished cell is lost
            stored = files
        again = len(measured_cells(server.log)) - 40
        assert 0 <= again <= killed  # at most the one cell that each kill met was begun again
        for name in TABLES:
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len((tmp_path / "whole" / "numbers.csv").read_text().splitlines()) == 1 + 3 * 40


def killed_at_random(server, folder, rng, *, resume, stored, last):
    """Run, and kill after none to four more cells and up to 12 ms, unless this is the last run; the exit code."""
    child = server.start("run", "cheap", "--out", str(folder), *(["--resume"] if resume else []))
    if not last:
        finished_after(folder, stored + rng.randrange(5), child)
        time.sleep(0.012 * rng.random())
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return server.code()


@posix
def test_ctrl_c_stops_workers_at_once_and_keeps_what_is_finished(server, tmp_path):
    code, attempt = 0, 0
    while code == 0 and attempt < 10:  # on a busy machine the run may be done before it is interrupted
        attempt += 1
        folder = tmp_path / f"interrupted {attempt}"
        child = server.start("run", "cheap", "--workers", "2", "--out", str(folder))
        finished_after(folder, 1, child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGINT)  # as a terminal does
        code = server.code()
    assert code == 130
    output = server.output.read_text()
    where = folder / "cells"
    assert output == f"experiments: interrupted; the finished cells of cheap are in {where}, --resume goes on.\n"
    assert 1 <= len(cell_files(folder)) < 40
    deadline = time.monotonic() + 10
    while process_exists(-child):  # the workers, and what counts the resources of multiprocessing
        assert time.monotonic() < deadline
        time.sleep(0.01)


# resuming ------------------------------------------------------------------------------------------------------------


def test_only_missing_cells_are_measured(tmp_path):
    settings = CheapSettings(num_cells=12, pause=0, log=str(tmp_path / "log"))
    whole, notes = run(settings, tmp_path)
    assert notes == []
    removed = cell_files(tmp_path)[3]
    index = int(re.search(r"x (\d+)$", json.loads(json.loads(removed.read_text())["cell"])["key"])[1])
    removed.unlink()
    (tmp_path / "log").unlink()
    again, notes = run(settings, tmp_path, resume=True)
    assert notes == []
    assert measured_cells(tmp_path / "log") == [index]
    assert repr(again.tables) == repr(whole.tables)
    assert again.verdicts == whole.verdicts
    fresh, _ = run(settings, tmp_path)
    assert len(measured_cells(tmp_path / "log")) == 13  # without `resume` nothing is kept
    assert repr(fresh.tables) == repr(whole.tables) == repr(run_in_memory(EXPERIMENT, settings).tables)


@dataclasses.dataclass(frozen=True)
class Stepwise(ResumableCell):
    """A cell of four steps that is interrupted in the third, once."""

    def resume(self, settings, checkpoint):
        done = json.loads(checkpoint.read_text()) if checkpoint.exists() else []
        for step in range(len(done), 4):
            done.append(step)
            checkpoint.write_text(json.dumps(done))
            if step == 2 and not checkpoint.with_suffix(".seen").exists():
                checkpoint.with_suffix(".seen").touch()
                raise KeyboardInterrupt
        return {"numbers": [{"steps": len(done), "begun again": len(set(done)) != len(done)}]}


def test_a_cell_goes_on_from_its_checkpoint_which_is_removed_in_the_end(tmp_path):
    experiment = dataclasses.replace(
        EXPERIMENT, cells=lambda settings: [Stepwise()], verdicts=lambda *_: [], summaries=lambda *_: []
    )
    with pytest.raises(KeyboardInterrupt):
        runs.run(experiment, CheapSettings(), tmp_path)
    (checkpoint,) = tmp_path.glob("cells/*/*.checkpoint")
    assert json.loads(checkpoint.read_text()) == [0, 1, 2]
    results = runs.run(experiment, CheapSettings(), tmp_path, resume=True)
    assert results.tables["numbers"] == [{"steps": 4, "begun again": False}]
    assert not checkpoint.exists()


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_cells": 11}, {"pause": 1e-9}, {"quick": True}], ids=str)
def test_changed_settings_reuse_nothing(change, tmp_path):
    settings = CheapSettings(num_cells=12, pause=0, log=str(tmp_path / "log"))
    run(settings, tmp_path)
    (tmp_path / "log").unlink()
    other = dataclasses.replace(settings, **change)
    _, notes = run(other, tmp_path, resume=True)
    assert measured_cells(tmp_path / "log") == list(range(other.num_cells))
    assert len(notes) == 1
    assert "are of other settings, code or versions" in notes[0]
    (tmp_path / "log").unlink()
    run(settings, tmp_path, resume=True)  # those of the first settings are still there
    assert measured_cells(tmp_path / "log") == []


def test_changed_code_reuses_nothing(tmp_path, monkeypatch):
    settings = CheapSettings(num_cells=3, pause=0, log=str(tmp_path / "log"))
    run(settings, tmp_path)
    monkeypatch.setattr(provenance, "code_digest", lambda module: "other")
    run(settings, tmp_path, resume=True)
    assert measured_cells(tmp_path / "log") == [0, 1, 2, 0, 1, 2]


def test_code_of_an_experiment_is_what_its_cells_come_from():
    def reached(name):
        return {path.name for path in provenance.reached(EXPERIMENTS[name].cells.__module__)}

    assert {"measure.py", "estimators.py", "experiment.py", "cells.py"} <= reached("kernel_mse")
    assert {"heads.py", "softened.py", "outputs.py"} <= reached("attention_error")
    assert not {"verdicts.py", "figures.py", "report.py", "run.py"} & reached("kernel_mse")
    assert provenance.code_digest("experiments.transfer") != provenance.code_digest("experiments.catalogue")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: re.sub(r"(?<=0\.\d\d)\d", lambda digit: str(9 - int(digit[0])), text, count=1),
        lambda text: "[]",
        lambda text: json.dumps({"sha256": "0", "cell": 3}),
    ],
    ids=["half", "empty", "one digit", "other content", "other types"],
)
def test_a_damaged_cell_is_measured_again_and_said_so(damage, tmp_path):
    settings = CheapSettings(num_cells=4, pause=0, log=str(tmp_path / "log"))
    whole, _ = run(settings, tmp_path)
    path = cell_files(tmp_path)[2]
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    (tmp_path / "log").unlink()
    again, notes = run(settings, tmp_path, resume=True)
    assert len(measured_cells(tmp_path / "log")) == len(notes) == 1
    assert "is measured again: " in notes[0]
    assert str(path) in notes[0]
    assert repr(again.tables) == repr(whole.tables)
    assert (
        json.loads(path.read_text())["cell"].partition('"tables"')[2]
        == json.loads(text)["cell"].partition('"tables"')[2]
    )


def test_a_cell_under_the_name_of_another_is_damaged(tmp_path):
    store = CellStore(tmp_path, {"experiment": "e"})
    store.open()
    store.save("a", Measured({}, 0.0))
    store.path("b").write_bytes(store.path("a").read_bytes())
    assert store.load("c") is None
    with pytest.raises(DamagedCell, match="holds the cell 'a'"):
        store.load("b")


def test_floats_survive_bit_for_bit(tmp_path):
    patterns = [0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000000, 0xFFF0000000000000, 1, 1 << 63]
    rng = random.Random(1)
    patterns += [rng.getrandbits(64) for _ in range(2000)]
    floats = [struct.unpack(">d", struct.pack(">Q", pattern))[0] for pattern in patterns]
    store = CellStore(tmp_path, {})
    store.open()
    store.save("bits", Measured({"bits": [{"bits": x, "text": "NaN", "n": 10**30} for x in floats], "none": []}, 0.0))
    back = store.load("bits").tables
    assert [struct.pack(">d", row["bits"]) for row in back["bits"]] == [struct.pack(">d", x) for x in floats]
    assert back["bits"][0]["text"] == "NaN"
    assert back["bits"][0]["n"] == 10**30
    assert back["none"] == []


def test_a_fresh_run_removes_cells_and_nothing_else(tmp_path):
    settings = CheapSettings(num_cells=3, pause=0)
    (tmp_path / "cells" / "notes").mkdir(parents=True)
    (tmp_path / "cells" / "notes" / "mine.json").write_text("{}")
    run(dataclasses.replace(settings, seed=7), tmp_path)
    run(settings, tmp_path)
    assert (tmp_path / "cells" / "notes" / "mine.json").exists()
    assert len(cell_files(tmp_path)) == 3 + 1
    about = json.loads(next(tmp_path.glob("cells/*/run.json")).read_text())
    assert (about["experiment"], about["settings"]["seed"]) == ("cheap", 0)


def test_rows_must_hold_plain_values():
    class Bad(CheapCell):
        def measure(self, settings):
            return {"t": [{"x": [1.0, 2.0]}]}

    with pytest.raises(TypeError, match="got list in column 'x' of table 't'"):
        measure(Bad(0), CheapSettings())
    ((_, outcome),) = in_turn([Bad(0)], CheapSettings())
    assert isinstance(outcome, Failure)


def test_cells_of_one_name_are_refused(tmp_path):
    twice = dataclasses.replace(EXPERIMENT, cells=lambda settings: [CheapCell(0), CheapCell(0)])
    with pytest.raises(ValueError, match="cells must have different keys"):
        runs.run(twice, CheapSettings(), tmp_path)


# workers -------------------------------------------------------------------------------------------------------------


@posix
def test_workers_that_die_lose_nothing_and_give_the_bits_of_one_process(tmp_path, cheap, monkeypatch, capsys):
    log = tmp_path / "log"
    settings = CheapSettings(num_cells=12, pause=0, log=str(log), killing=((5, 1), (2, 2)), raising=((4, 1),))
    monkeypatch.setitem(EXPERIMENTS, "cheap", dataclasses.replace(cheap, settings=settings))
    assert main(["run", "cheap", "--out", str(tmp_path), "--workers", "2"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    died, raised = (
        r"2': its worker process died 2 times \(exit code -9\)",
        r"4': ArithmeticError: no luck with 4 \(.*\.py:",
    )
    assert re.match(r"experiments: cheap: cell 'cell/of .* " + died, lines[0])
    assert re.match(r"experiments: cheap: cell 'cell/of .* " + raised, lines[1])
    assert "2 cells failed" in lines[2]
    assert "Traceback" in (tmp_path / "failures.txt").read_text()
    assert sorted(measured_cells(log)) == sorted([*range(12), 2, 5])  # each death costs one
    assert len(cell_files(tmp_path)) == 10
    assert not (tmp_path / "results.json").exists()

    assert main(["run", "cheap", "--out", str(tmp_path), "--resume"]) == 0
    assert len(measured_cells(log)) == 14 + 2
    calm = run_in_memory(EXPERIMENT, CheapSettings(num_cells=12, pause=0))
    calm.write(tmp_path / "calm")
    assert repr(Results.read(tmp_path).verdicts) == repr(calm.verdicts)
    for name in TABLES:
        assert (tmp_path / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


@pytest.fixture(scope="module")
def cluster():
    """The address of a scheduler on this machine with two workers, and a function that lists their processes."""
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install '.[dask]'")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options, worker_dashboard_address=None, silence_logs="CRITICAL") as found:
        yield found.scheduler_address, lambda: [nanny.pid for nanny in found.workers.values()]


@posix
def test_dask_gives_the_bits_of_one_process_though_a_worker_is_killed(cluster, tmp_path, cheap, monkeypatch, capsys):
    address, processes = cluster
    log = tmp_path / "log"
    settings = CheapSettings(num_cells=24, pause=0.03, log=str(log), raising=((4, 1),))
    monkeypatch.setitem(EXPERIMENTS, "cheap", dataclasses.replace(cheap, settings=settings))

    done, killed = threading.Event(), []

    def kill():
        while len(cell_files(tmp_path)) < 8 and not done.wait(0.002):
            pass
        killed.append(processes()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    code = main(["run", "cheap", "--out", str(tmp_path), "--dask", address])
    done.set()
    killer.join()
    err = capsys.readouterr().err
    assert (code, len(killed)) == (3, 1)
    assert "cell 'cell/of a <cheap>" in err
    assert "4': ArithmeticError: no luck with 4" in err
    assert len(cell_files(tmp_path)) == 23
    assert 24 <= len(measured_cells(log)) <= 24 + 12
    assert main(["run", "cheap", "--out", str(tmp_path), "--dask", address, "--resume"]) == 0
    calm = run_in_memory(EXPERIMENT, CheapSettings(num_cells=24, pause=0))
    calm.write(tmp_path / "calm")
    for name in TABLES:
        assert (tmp_path / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


@posix
@pytest.mark.parametrize("workers", [0, 2])
def test_after_an_error_no_further_cell_starts(tmp_path, workers):
    """The disk is full at the first cell: cells that workers have by then are all that is measured."""
    log = tmp_path / "log"
    settings = CheapSettings(num_cells=30, pause=0.05, log=str(log))
    how = functools.partial(in_processes, workers=workers) if workers else in_turn

    def full(*_):
        raise OSError("no space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CellStore, "save", full)
        with pytest.raises(OSError, match="no space left"):
            run(settings, tmp_path, measure=how)
    started = measured_cells(log)
    assert 1 <= len(started) <= 1 + 2 * workers
    time.sleep(0.2)
    assert measured_cells(log) == started  # nobody goes on


def test_dask_refuses_workers_with_other_code():
    module = EXPERIMENT.cells.__module__
    same, other = (
        on_dask.remotely(CheapCell(0), CheapSettings(pause=0), module, code)
        for code in (provenance.code_digest(module), "0")
    )
    assert isinstance(same, Measured)
    assert "other code" in other.reason


def test_no_scheduler_is_one_line_and_exit_code_2(monkeypatch, tmp_path, cheap, capsys):
    pytest.importorskip("distributed", reason="needs dask: pip install '.[dask]'")
    monkeypatch.setattr(on_dask, "TIMEOUT", 0.3)
    nobody, malformed = (
        "no Dask scheduler answers at tcp://127.0.0.1:1.",
        "expected an address like tcp://127.0.0.1:8786",
    )
    for address, message in (("tcp://127.0.0.1:1", nobody), ("nonsense", malformed), ("tcp://", malformed)):
        assert main(["run", "cheap", "--quick", "--out", str(tmp_path), "--dask", address]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"experiments: --dask: {message}")
        assert err.count("\n") == 1


# the command line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "cheap", "--workers", "0"], "argument --workers: must be a positive integer, got 0"),
        (["all", "--workers", "two"], "argument --workers: must be a positive integer, got two"),
        (["run", "cheap", "--workers", "2", "--dask", "tcp://127.0.0.1:1"], "argument --dask: not allowed with"),
        (["run", "cheap", "--quick", "--full"], "argument --full: not allowed with argument --quick"),
        (["run", "cheap", "nonsense"], "unknown experiment 'nonsense'; expected one of "),
        (["publish", "nonsense"], "unknown experiment 'nonsense'; expected one of "),
        (["run", "cheap", "--out", "file/in/the/way"], "cannot write to --out file"),
        (["report", "nowhere"], "no results in nowhere: expected results.json there"),
        (["report", "damaged"], "damaged/results.json does not hold results: "),
        (["publish", "cheap", "--out", "nowhere"], "cannot publish cheap from nowhere: "),
        (["publish", "cheap", "--out", "other"], "cannot publish cheap from other: the results there are of e."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_impossible_commands_are_one_line_and_exit_code_2(arguments, message, tmp_path, cheap, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    Path("damaged").mkdir()
    Path("damaged/results.json").write_text('{"experiment": 1')
    Results("e", "c", {}, {}, 0.0, {}, []).write(Path("other"))
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"experiments: {message}")
    assert err.count("\n") == 1


def test_several_names_sizes_and_the_worst_exit_code(tmp_path, cheap, monkeypatch, capsys):
    bad = dataclasses.replace(cheap, name="bad", verdicts=lambda tables, settings: [Verdict("c", "e", "m", False)])
    broken = dataclasses.replace(cheap, name="broken", verdicts=lambda tables, settings: tables["missing"])
    for experiment in (bad, broken):
        monkeypatch.setitem(EXPERIMENTS, experiment.name, experiment)
    assert main(["run", "cheap", "bad", "cheap", "--quick", "--out", str(tmp_path), "--rng", "2"]) == 1
    results = Results.read(tmp_path / "cheap")
    assert len(results.tables["others"]) == 5
    assert results.command == "python -m experiments run cheap --quick --rng 2"
    assert {"processor", "device", "commit", "numpy"} <= set(results.environment)
    assert results.units == {"seconds": "s"}
    assert (tmp_path / "bad" / "results.json").exists()
    assert main(["run", "cheap", "--full", "--out", str(tmp_path)]) == 0
    assert len(Results.read(tmp_path).tables["others"]) == 6
    capsys.readouterr()
    assert main(["run", "broken", "cheap", "--quick", "--out", str(tmp_path)]) == 3
    err = capsys.readouterr().err
    assert "experiments: broken: KeyError: 'missing'; its finished cells are kept" in err
    assert len(cell_files(tmp_path / "broken")) == 5


def test_full_is_the_default_where_there_is_no_larger_run():
    experiment = EXPERIMENTS["kernel_mse"]
    assert experiment.configure(full=True) == experiment.configure()
    assert EXPERIMENT.configure(full=True).full
