"""Pictures: what is drawn are the numbers; axes of the caller are used and returned."""

import numpy as np
import pytest

import randfeat as rf

matplotlib = pytest.importorskip("matplotlib", reason="pip install '.[plot]'")
from matplotlib.figure import Figure  # noqa: E402


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def curve(rng):
    x, y = rng.standard_normal((2, 6, 5)) / 3
    estimators = [rf.PositiveFeatures(), rf.TrigonometricFeatures()]
    return rf.montecarlo.error_curve(estimators, x, y, num_features=[32, 8], num_draws=10, rng=0)


@pytest.mark.parametrize("measure", ["relative_mse", "bias", "sup"])
def test_error_curves_are_points_with_bars_and_lines_of_closed_forms(curve, ax, measure):
    assert rf.plotting.plot_error_curve(curve, measure, ax=ax) is ax
    assert [container.get_label() for container in ax.containers] == list(curve.names)
    for i, container in enumerate(ax.containers):
        points, _, (bars,) = container.lines
        np.testing.assert_array_equal(points.get_xdata(), [8, 32])
        np.testing.assert_array_equal(points.get_ydata(), curve[measure].value[i, ::-1])
        heights = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
        np.testing.assert_allclose(heights, 4 * curve[measure].standard_error[i, ::-1], rtol=1e-10)
    lines = [line.get_ydata() for line in ax.get_lines() if line.get_marker() == "None" and len(line.get_xdata()) == 2]
    if measure in curve.closed_forms:
        np.testing.assert_array_equal(lines[0], curve.closed_forms[measure][0, ::-1])
    assert ax.get_yscale() == ("linear" if measure == "bias" else "log")


def test_attention_errors_have_the_average_of_the_values(rng, ax, curve):
    q, k, v = rng.standard_normal((3, 20, 4))
    of_outputs = rf.montecarlo.error_curve(rf.PositiveFeatures(), query=q, key=k, value=v, num_features=[8, 16], rng=0)
    assert rf.plotting.plot_attention_error(of_outputs, ax=ax) is ax
    (line,) = [line for line in ax.get_lines() if line.get_label() == "average of the values"]
    assert line.get_ydata()[0] == of_outputs.average_error
    with pytest.raises(ValueError, match="this curve is of kernel values"):
        rf.plotting.plot_attention_error(curve, ax=ax)


def test_spectra_are_eigenvalues(rng, ax):
    x = rng.standard_normal((30, 3))
    maps = {m: rf.TrigonometricFeatures(rf.GaussianKernel()).draw(3, m, rng=0) for m in (8, 64)}
    rf.plotting.plot_spectrum(x, maps, ax=ax)
    exact, *estimated = ax.get_lines()
    np.testing.assert_allclose(exact.get_ydata()[:5], np.linalg.eigvalsh(rf.GaussianKernel()(x, x))[::-1][:5])
    for line, (m, phi) in zip(estimated, maps.items(), strict=True):
        values = np.linalg.eigvalsh(phi(x) @ phi(x).T)[::-1][: min(m, 30)]
        np.testing.assert_allclose(line.get_ydata(), values, atol=1e-8)
        assert line.get_label() == str(m)


def test_shares_of_features_are_those_of_the_denominators(rng, ax):
    q, k = rng.standard_normal((2, 20, 4))
    phi = rf.PositiveFeatures().draw(4, 16, rng=0)
    rf.plotting.plot_features(q, k, phi, scale=1.0, ax=ax)
    terms = phi(q) * phi(k).sum(axis=0)
    shares = np.sort(terms / terms.sum(axis=-1, keepdims=True), axis=-1)[:, ::-1]
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), np.cumsum(shares, axis=-1).mean(axis=0), rtol=1e-8)


def test_the_current_axes_of_pyplot_are_the_default(curve, pyplot):
    _, ax = pyplot.subplots()
    assert rf.plotting.plot_error_curve(curve) is ax


def test_errors(curve, ax, rng):
    with pytest.raises(TypeError, match="curve must be an ErrorCurve"):
        rf.plotting.plot_error_curve([1, 2], ax=ax)
    with pytest.raises(TypeError, match="ax must be axes of matplotlib"):
        rf.plotting.plot_error_curve(curve, ax=3)
    with pytest.raises(TypeError, match="lines at right angles, got"):
        rf.plotting.plot_error_curve(curve, ax=Figure().subplots(subplot_kw={"projection": "polar"}))
    x, phi = rng.standard_normal((5, 3)), rf.PositiveFeatures().draw(3, 8, rng=0, batch_shape=(2,))
    with pytest.raises(ValueError, match="has several spectra"):
        rf.plotting.plot_spectrum(x, phi, ax=ax)
    with pytest.raises(ValueError, match="shape"):
        rf.plotting.plot_spectrum(x[0], phi, ax=ax)
    with pytest.raises(ValueError, match="n at least 1"):
        rf.plotting.plot_spectrum(x[:0], phi, ax=ax)
    with pytest.raises(ValueError, match="two names are the same as text: 1, '1'"):
        rf.plotting.plot_spectrum(x, {1: phi, "1": phi}, ax=ax)


@pytest.mark.parametrize("factor", [0.0, np.nan])
def test_a_curve_without_positive_numbers_has_an_axis_that_is_not_logarithmic(rng, ax, factor):
    estimator = rf.SpectralFeatures(rf.AdditiveChi2Kernel())
    curve = rf.montecarlo.error_curve(estimator, factor * np.ones((3, 2)), np.ones(2), num_features=8, num_draws=2)
    assert rf.plotting.plot_error_curve(curve, ax=ax).get_yscale() == "linear"
