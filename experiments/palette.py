"""Colors that colour-blind readers can tell apart, and the look of every coupling and estimator."""

from typing import Any

# Okabe & Ito 2008, "Color Universal Design".
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#777777"

COUPLING_STYLES: dict[str, dict[str, Any]] = {
    "independent": {"color": BLACK, "marker": "o"},
    "orthogonal": {"color": BLUE, "marker": "s"},
    "simplex": {"color": GREEN, "marker": "^"},
    "antithetic": {"color": ORANGE, "marker": "D"},
    "antithetic-orthogonal": {"color": VERMILION, "marker": "v"},
    "centered": {"color": PURPLE, "marker": "P"},
    "constant norms": {"color": SKY, "marker": "X"},
}

ESTIMATOR_STYLES: dict[str, dict[str, Any]] = {
    "positive": {"color": BLUE, "marker": "o"},
    "hyp+": {"color": VERMILION, "marker": "s"},
    "trig pairs": {"color": GREEN, "marker": "^"},
    "trig phase": {"color": PURPLE, "marker": "v"},
}
