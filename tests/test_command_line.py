"""The command `randfeat`: what it prints, what machines can read, and how it refuses."""

import json
import os
import re

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention.cost_model import measurement
from randfeat.cli import bench, roofline
from randfeat.cli.bench import CAUSAL, EXACT, LINEAR, METHODS, PHI, Workload
from randfeat.cli.command_line import main


@pytest.fixture
def data(tmp_path):
    """A file with queries, keys and values."""
    query, key, value = np.random.default_rng(0).standard_normal((3, 2, 60, 4))
    np.savez(tmp_path / "data.npz", q=query, k=key, v=value)
    return tmp_path / "data.npz"


def test_info_names_versions_and_threads(capsys, monkeypatch):
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", "3")
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["randfeat"] == rf.__version__
    assert facts["libraries"]["numpy"] == np.__version__
    assert facts["threads"] == 3
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert f"numpy {np.__version__}" in text
    assert "BLAS" in text
    monkeypatch.setenv("RANDFEAT_NUM_THREADS", "many")
    assert main(["info"]) == 2
    assert "RANDFEAT_NUM_THREADS must be a positive integer, got 'many'" in capsys.readouterr().err


def test_catalogue_is_the_catalogue(capsys):
    assert main(["catalogue", "--json", "coupling"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        json.dumps([entry.as_dict() for entry in rf.catalogue("coupling")])
    )
    assert main(["catalogue", "coupling"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(rf.catalogue("coupling"))
    assert len({line.index(line.split()[1]) for line in lines}) == 1  # columns are aligned


def test_catalogue_fits_a_terminal_unless_all_is_asked_for(capsys):
    for kind in ([], ["estimator"], ["coupling"], ["kernel"]):
        assert main(["catalogue", *kind]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 120
    assert main(["catalogue", "--long", "estimator"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for entry, line in zip(rf.catalogue("estimator"), lines[1:], strict=True):
        assert ", ".join(entry.closed_form) in line


def test_recommend_is_recommend(capsys, data):
    with np.load(data) as file:
        expected = rf.recommend(file["q"], file["k"], file["v"], num_features=16, is_causal=True, rng=3)
    command = ["recommend", str(data), "--num-features", "16", "--causal", "--rng", "3"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [one["error"] for one in record["candidates"]] == [one.error for one in expected]
    assert record["average_error"] == expected.average_error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["dance"], "invalid choice"),
        (["catalogue", "estimators"], "invalid choice"),
        (["recommend", "{nothing}"], "No such file"),
        (["recommend", "{text}"], "not a readable .npz file"),
        (["recommend", "{pickled}"], "not a readable .npz file"),
        (["recommend", "{other}"], 'expected arrays "q" and "k" (or "query" and "key"), found a'),
        (["recommend", "{array}"], "one array, expected an .npz file: numpy.savez('array.npz', q=q, k=k)"),
        (["recommend", "{damaged}"], "not a readable .npz file"),
        (["recommend", "{folder}"], "Is a directory"),
        (["recommend", "{data}", "--num-features", "0"], "num_features must be a positive integer, got 0"),
        (["recommend", "{data}", "--num-features", "many"], "invalid int"),
        (["bench", "--heads", "0"], "--heads: expected a positive integer, got '0'"),
        (["bench", "--dim", "-1"], "--dim: expected a positive integer, got '-1'"),
        (["bench", "--lengths", "64,,128"], "--lengths: expected a positive integer, got ''"),
        (["bench", "--lengths", "1e3"], "--lengths: expected a positive integer, got '1e3'"),
        (["bench", "--dtype", "int8"], "invalid choice"),
        (["bench", "--backend", "fortran"], "invalid choice"),
        (["bench", "--backend", "torch", "--threads", "2"], "a setting of torch itself"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, data, arguments, message):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "pickled.npz", q=np.array([{}], dtype=object), k=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones((3, 4)))
    damaged = bytearray(data.read_bytes())
    damaged[200] ^= 1
    (tmp_path / "damaged.npz").write_bytes(damaged)
    folders = {"folder": tmp_path, "array": tmp_path / "array.npy"}
    paths = (
        {name: tmp_path / f"{name}.npz" for name in ("nothing", "text", "other", "pickled", "damaged")}
        | folders
        | {"data": data}
    )
    assert main([argument.format(**paths) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err


@pytest.mark.parametrize("special", ["/dev/zero", "pipe"])
def test_recommend_waits_for_no_pipe(capsys, tmp_path, special):
    path = tmp_path / special
    if special == "pipe":
        os.mkfifo(path)
    assert main(["recommend", str(path)]) == 2
    assert capsys.readouterr().err == f"randfeat: {path}: not a regular file\n"


# bench ---------------------------------------------------------------------------------------------------------------

SMALL = ["bench", "--lengths", "48,16,48", "--heads", "2", "--dim", "4", "--num-features", "8", "--threads", "1"]
RATES = ("exact_call", "exact_pair", "exact_pair_dim", "exact_pass", "linear_call", "linear_head", "feature",
         "feature_dim", "causal_feature", "transform")  # fmt: skip


@pytest.fixture
def hasty(monkeypatch):
    """One round, and small ceilings."""
    monkeypatch.setattr(roofline, "SIZE", 32)
    monkeypatch.setattr(roofline, "REPEATS", 1)
    monkeypatch.setattr(measurement, "BUDGET", 0.0)
    monkeypatch.setattr(measurement, "ROUNDS", (1, 1))
    monkeypatch.setattr(bench, "ROUNDS", (1, 1))


def costs(**rates):
    """Rates that are 0 where nothing else is said."""
    return rf.AttentionCosts(**(dict.fromkeys(RATES, 0.0) | rates))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("options", [[], ["--dtype", "float64"]])
def test_bench_for_machines(capsys, options):
    assert main([*SMALL, "--json", *options]) == 0
    record = json.loads(capsys.readouterr().out)
    dtype = options[1] if options else "float32"
    assert record["workload"] == {
        "library": "numpy", "dtype": dtype, "heads": 2, "dim": 4, "num_features": 8, "num_threads": 1
    }  # fmt: skip
    assert {
        "randfeat",
        "processor",
        "platform",
        "python",
        "device",
        "libraries",
        "blas",
        "threads",
        "load_before",
    } == set(record["machine"])
    assert record["machine"]["threads"] == 1
    assert all("1 threads" in library for library in record["machine"]["blas"])
    assert [(one["length"], one["method"]) for one in record["timings"]] == [(n, m) for n in (16, 48) for m in METHODS]
    exact = {one["length"]: one["seconds"] for one in record["timings"] if one["method"] == EXACT}
    for one in record["timings"]:
        assert one["left_out"] is None
        assert one["tokens_per_second"] == pytest.approx(one["length"] / one["seconds"])
        assert one["over_exact"] == pytest.approx(one["seconds"] / exact[one["length"]])
        assert (one["share_of_roofline"] is not None) == (one["method"] == LINEAR)
    found = record["ceilings"]
    for one in record["timings"]:
        if one["method"] == LINEAR:  # 2 heads, 4·8·4 + 4·8·5 operations and 16 exponentials per token and head
            least = 2 * one["length"] * (288 / found["flops_per_second"] + 16 / found["exponentials_per_second"])
            assert one["share_of_roofline"] == pytest.approx(least / one["seconds"])
    assert set(record["crossing"]) == {"full", "causal"}
    assert isinstance(rf.AttentionCosts(**record["costs"]), rf.AttentionCosts)


@pytest.mark.usefixtures("hasty")
def test_bench_for_readers(capsys):
    """Every column has a unit, numbers are aligned, and the rates can be pasted."""
    assert main(SMALL) == 0
    machine, table, remarks = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    assert f"numpy {np.__version__}" in "".join(machine)
    assert machine[1].split()[:3] == ["used", "1", "threads,"]
    assert re.findall(r"\[(.*?)\]", table[0]) == ["tokens", "ms", "1000 tokens/s", "ratio", "%"]
    assert [line.startswith(method) for line, method in zip(table[1:], 2 * METHODS, strict=True)] == [True] * 8
    assert len({len(line) for line in table}) == 1
    assert "e+" not in "".join(table)
    pasted = remarks[-1].removeprefix("rates in seconds: ")
    assert isinstance(eval(pasted, {"rf": rf}), rf.AttentionCosts)
    assert "GFLOP/s" in remarks[-2]
    assert "G/s" in remarks[-2]


@pytest.mark.usefixtures("hasty")
def test_bench_leaves_out_what_takes_too_long(capsys, monkeypatch):
    """Nothing is called or allocated, and everything is said."""
    monkeypatch.setattr(Workload, "calls", None)
    monkeypatch.setattr(bench, "measured_rates", lambda *_: vars(costs(exact_pair=1.0, feature=1.0)))
    assert main(SMALL) == 0
    _, table, remarks = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    assert [line.split()[-4:] for line in table[1:]] == 8 * [4 * ["-"]]
    assert "left out: exact at 16 tokens, 512.0 s expected, more than 2 s" in remarks
    assert "left out: phi(x) at 48 tokens, 1536.0 s expected, more than 2 s" in remarks
    assert sum(line.startswith("left out") for line in remarks) == 8


def test_what_takes_too_much():
    """Seconds by the rates, bytes by the shapes; full linear attention has no array of all features."""
    slow = costs(exact_pair=1e-9, feature=1e-9)
    assert Workload().too_much(EXACT, 8192, slow) is None
    assert Workload().too_much(EXACT, 16384, slow) == "2.1 s expected, more than 2 s"
    assert Workload().too_much(LINEAR, 1 << 17, slow) is None
    free = costs()
    expected = {EXACT: "3.5 GiB expected, more than 1 GiB", LINEAR: None, CAUSAL: None, PHI: None}
    assert {method: Workload().too_much(method, 1 << 16, free) for method in METHODS} == expected
    assert Workload(dtype="float64").too_much(PHI, 1 << 16, free) == "2.0 GiB expected, more than 1 GiB"


@pytest.mark.parametrize("is_causal", [False, True])
def test_crossing_length(is_causal):
    """Equal rates for pairs and features: L² pairs against 2 L m features."""
    equal = costs(exact_pair=1e-9, feature=1e-9)
    assert Workload(num_features=128).crossing(equal, is_causal=is_causal) == 256
    assert Workload().crossing(costs(exact_pair=1e-9, feature=1.0), is_causal=is_causal) is None
    assert Workload().crossing(costs(exact_pair=1e-9), is_causal=is_causal) == 1


@pytest.mark.usefixtures("hasty")
def test_bench_of_another_library(capsys):
    """No ceilings, and threads are the library's own."""
    pytest.importorskip("torch")
    assert main([*SMALL[:-2], "--backend", "torch"]) == 0
    text = capsys.readouterr().out
    assert "threads as torch sets them" in text
    assert "GFLOP/s" not in text


def test_bench_without_the_library(capsys, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(bench, "namespace_named", missing)
    assert main(["bench", "--backend", "cupy"]) == 2
    assert capsys.readouterr().err == "randfeat: cupy is not installed.\n"
