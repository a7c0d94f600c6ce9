"""The command `randfeat`: what it prints, what machines can read, and how it refuses."""

import json

import numpy as np
import pytest

import randfeat as rf
from randfeat.command_line import main


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


def test_catalogue_is_the_catalogue(capsys):
    assert main(["catalogue", "--json", "coupling"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        json.dumps([entry.as_dict() for entry in rf.catalogue("coupling")])
    )
    assert main(["catalogue", "coupling"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(rf.catalogue("coupling"))
    assert len({line.index(line.split()[1]) for line in lines}) == 1  # columns are aligned


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
        (["recommend", "{data}", "--num-features", "0"], "num_features must be a positive integer, got 0"),
        (["recommend", "{data}", "--num-features", "many"], "invalid int"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, data, arguments, message):
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "pickled.npz", q=np.array([{}], dtype=object), k=np.ones(3))
    paths = {name: tmp_path / f"{name}.npz" for name in ("nothing", "text", "other", "pickled")} | {"data": data}
    assert main([argument.format(**paths) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err
