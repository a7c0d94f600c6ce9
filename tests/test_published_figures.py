"""The published figures of the documentation: at most 15 lines each, public names only, and the claims hold."""

import re
import runpy
from pathlib import Path

import pytest

matplotlib = pytest.importorskip("matplotlib", reason="pip install '.[plot]'")

pytestmark = pytest.mark.usefixtures("pyplot")

FOLDER = Path(__file__).parents[1] / "docs" / "published"
CLAIMS = {
    "performer": [
        (f"positive, {coupling}", f"trigonometric, {coupling}") for coupling in ("orthogonal", "independent")
    ],
    "orthogonal": [("orthogonal", "independent"), ("hadamard", "independent"), ("orthogonal", "halton")],
    "simplex": [("simplex", "orthogonal"), ("orthogonal", "independent")],
}


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
