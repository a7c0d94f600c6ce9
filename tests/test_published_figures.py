"""The published figures of the documentation: at most 15 lines each, public names only, and the claims hold.

And those code blocks of the documentation that are scripts, not examples with prompts, which run as examples.
"""

import re
import runpy
from pathlib import Path

import pytest

matplotlib = pytest.importorskip("matplotlib", reason="pip install '.[plot]'")

FOLDER = Path(__file__).parents[1] / "docs" / "published"
CLAIMS = {
    "performer": [
        (f"positive, {coupling}", f"trigonometric, {coupling}") for coupling in ("orthogonal", "independent")
    ],
    "orthogonal": [("orthogonal", "independent"), ("hadamard", "independent"), ("orthogonal", "halton")],
    "simplex": [("simplex", "orthogonal"), ("orthogonal", "independent")],
}


@pytest.fixture(autouse=True)
def agg():
    before = matplotlib.get_backend()
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield
    pyplot.close("all")
    matplotlib.use(before)


@pytest.mark.parametrize("name", ["favor_sharp", *CLAIMS])
def test_figures_are_short_and_show_the_claim(name):
    path = FOLDER / f"{name}.py"
    source = path.read_text()
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    assert not re.search(r"\._(?!_name__)", source)
    drawn = runpy.run_path(str(path))
    if name == "favor_sharp":
        lines = {line.get_label(): line.get_ydata() for line in matplotlib.pyplot.gca().get_lines()}
        assert lines["OptimalPositiveFeatures"][-1] < lines["PositiveFeatures"][-1] - 5
    for better, worse in CLAIMS.get(name, []):
        measured = drawn["curve"]["median_error" if name == "performer" else "mse"].value[:, -1]
        names = drawn["curve"].names
        assert measured[names.index(better)] < measured[names.index(worse)]


def script_of(page):
    """The first code block of a page of docs/ that has no prompts."""
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER.parent / page).read_text(encoding="utf-8"), re.DOTALL)
    return next(block for block in blocks if ">>>" not in block)


def test_the_figure_of_your_own_has_five_lines_and_is_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = script_of("published.md")
    assert len([line for line in script.splitlines() if line and not re.match("import|from", line)]) <= 5
    exec(compile(script, "published.md", "exec"), {})
    assert Path("errors.pdf").read_bytes()[:4] == b"%PDF"


def test_the_timings_of_the_guide_run(capsys):
    script = script_of("attention_guide.md")
    short = re.sub(r"for length in \(.*\):", "for length in (32,):", script)
    assert short != script
    exec(compile(short, "attention_guide.md", "exec"), {})
    assert len(capsys.readouterr().out.split()) == 7
