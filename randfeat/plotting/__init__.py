"""Pictures of errors, spectra and features, by matplotlib (`pip install '.[plot]'`).

Each function draws into `ax`, by default the current axes of pyplot, and returns the axes. Theory is drawn as lines,
measurements as points with intervals of two standard errors.
"""

from randfeat.plotting.error_curve import plot_attention_error, plot_error_curve
from randfeat.plotting.features import plot_features
from randfeat.plotting.spectrum import plot_spectrum

__all__ = ["plot_attention_error", "plot_error_curve", "plot_features", "plot_spectrum"]
