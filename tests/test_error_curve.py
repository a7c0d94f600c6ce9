"""Error curves: the numbers of naive loops, closed forms beside them, paired draws, tables and files."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.montecarlo import error_curve

ESTIMATORS = {
    "positive": rf.PositiveFeatures(),
    "waves": rf.TrigonometricFeatures(),
    "hyperbolic": rf.HyperbolicFeatures(),
}


@pytest.fixture
def pairs(rng):
    return rng.standard_normal((2, 6, 5)) / 3


@pytest.fixture
def heads(rng):
    return [rng.standard_normal((2, length, 4)) for length in (7, 9, 9)]


def draws(seed, width, estimator, dim, num_draws, index=0, count=1, batch_shape=()):
    """The maps of one cell, as SPEC 7 has them: a child of the seed for each width, one of it for each batch."""
    child = np.random.default_rng(seed).bit_generator.seed_seq.spawn(count)[index].spawn(1)[0]
    return estimator.draw(dim, width, rng=np.random.default_rng(child), batch_shape=(num_draws, *batch_shape))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_kernel_errors_are_those_of_a_loop(name, pairs):
    x, y = pairs
    curve = error_curve(ESTIMATORS[name], x, y, num_features=[8, 12], num_draws=20, rng=3)
    kernel = rf.SoftmaxKernel()
    for index, width in enumerate((8, 12)):
        phi = draws(3, width, ESTIMATORS[name], 5, 20, index, 2)
        estimates = np.diagonal(phi.estimate(x, y), axis1=1, axis2=2)
        absolute = estimates - kernel.pairwise(x, y)
        relative = absolute / kernel.pairwise(x, y)
        expected = {
            "relative_mse": (relative**2).mean(axis=1), "relative_bias": relative.mean(axis=1),
            "relative_sup": abs(relative).max(axis=1), "mse": (absolute**2).mean(axis=1),
            "bias": absolute.mean(axis=1), "sup": abs(absolute).max(axis=1),
        }  # fmt: skip
        assert curve.measures == tuple(expected)
        for measure, of_draws in expected.items():
            np.testing.assert_allclose(curve[measure].value[0, index], of_draws.mean(), rtol=1e-10, atol=1e-14)
            error = of_draws.std(ddof=1) / np.sqrt(20)
            np.testing.assert_allclose(curve[measure].standard_error[0, index], error, rtol=1e-8)
        np.testing.assert_allclose(curve.squares[0, index], expected["relative_mse"], rtol=1e-10)


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_errors_are_those_of_a_loop(is_causal, heads):
    query, key, value = heads
    mask = np.arange(9) < 7
    options = {"is_causal": is_causal, "key_mask": mask, "scale": 0.3}
    curve = error_curve(
        rf.PositiveFeatures(), query=query, key=key, value=value, num_features=8, num_draws=10, rng=1, **options
    )
    phi = draws(1, 8, rf.PositiveFeatures(), 4, 10, batch_shape=(2,))
    exact = rf.softmax_attention(query, key, value, **options)
    squares, largest = [], []
    for r in range(10):
        arrays = {name: array[r] for name, array in phi.arrays.items()}
        of_draw = rf.FeatureMap(phi.estimator, phi.dim, phi.num_features, arrays)
        output = rf.linear_attention(query, key, value, of_draw, **options)
        errors, sizes = np.sum((output - exact) ** 2, axis=-1), np.sum(exact**2, axis=-1)
        squares.append(np.mean(errors.sum(axis=-1) / sizes.sum(axis=-1)))
        largest.append(np.max(np.sqrt(errors.max(axis=-1) / sizes.mean(axis=-1))))
    np.testing.assert_allclose(curve.squares[0, 0], squares, rtol=1e-8)
    for measure, expected in {
        "error": np.sqrt(np.mean(squares)), "median_error": np.median(np.sqrt(squares)),
        "relative_sup": np.mean(largest), "relative_mse": np.mean(squares),
    }.items():  # fmt: skip
        np.testing.assert_allclose(curve[measure].value[0, 0], expected, rtol=1e-8)
    seen = np.tril(np.ones((7, 9))) * mask if is_causal else np.ones((7, 9)) * mask
    average = seen @ value / seen.sum(axis=-1, keepdims=True)
    ratios = np.sum((average - exact) ** 2, axis=(1, 2)) / np.sum(exact**2, axis=(1, 2))
    np.testing.assert_allclose(curve.average_error, np.sqrt(ratios.mean()), rtol=1e-10)


def test_closed_forms_stand_beside_measurements(pairs):
    """24 normal deviates below 5: false alarms below 2e-5. A closed form that is 20 % too small is 8 away."""
    x, y = pairs
    curve = error_curve(ESTIMATORS, x, y, num_features=[8, 32], num_draws=4000, rng=0)
    for measure in ("relative_mse", "relative_bias", "mse", "bias"):
        assert np.all(np.abs(curve[measure].z(curve.closed_forms[measure])) < 5)
    assert np.max(np.abs(curve["relative_mse"].z(0.8 * curve.closed_forms["relative_mse"]))) > 5
    assert "closed form" in str(curve)


def test_a_closed_form_that_is_not_known_is_nan(pairs):
    estimators = [rf.PositiveFeatures(coupling="halton"), rf.PositiveFeatures()]
    with pytest.raises(rf.NoClosedForm):
        estimators[0].variance(*pairs, num_features=8)
    curve = error_curve(estimators, *pairs, num_features=8, num_draws=5, rng=0)
    assert np.isnan(curve.closed_forms["mse"]).tolist() == [[True], [False]]
    assert str(curve).count("closed form") == 1


def test_paired_draws_make_ratios_sharper(rng):
    """Rows of both estimators are the same: the standard error is far below that of independent curves."""
    x = rng.standard_normal((10, 4)) / 2
    two = {"positive": rf.PositiveFeatures(), "twice": rf.PositiveFeatures() * 2.0}
    curve = error_curve(two, x, x, num_features=16, num_draws=50, rng=0)
    ratio = curve.ratio("positive", "twice")
    np.testing.assert_allclose(ratio.value, 1.0, rtol=1e-10)
    assert np.all(ratio.standard_error < 1e-10)
    with pytest.raises(ValueError, match=r"no curve of 'third', only of positive, twice"):
        curve.ratio("positive", "third")
    np.testing.assert_array_equal(curve.ratio(0, -1).value, ratio.value)
    for place in (2, -3, True, 0.0, np.arange(2)):
        with pytest.raises(ValueError, match=r"there is no curve of .*; or give places from 0 to 1"):
            curve.ratio(0, place)


def test_threads_and_progress_change_no_number(pairs, heads, monkeypatch, capsys):
    seen = []
    options = {"num_features": [4, 8], "num_draws": 6, "rng": 0}
    found = []
    for threads, progress in (("1", False), ("2", lambda done, total: seen.append((done, total)))):
        monkeypatch.setenv("RANDFEAT_NUM_THREADS", threads)
        for inputs in (dict(zip("xy", pairs, strict=True)), {"query": heads[0], "key": heads[1], "value": heads[2]}):
            found.append(error_curve(rf.PositiveFeatures(), **inputs, **options, progress=progress).squares)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[3])
    assert seen == [(1, 2), (2, 2)] * 2
    error_curve(rf.PositiveFeatures(), *pairs, **options, progress=True)
    assert capsys.readouterr().err.endswith("2 of 2 cells\n")


def test_columns_have_a_line_for_each_number(pairs):
    curve = error_curve(ESTIMATORS, *pairs, num_features=[8, 12], num_draws=5, rng=0)
    columns = curve.columns()
    assert {len(column) for column in columns.values()} == {6 * 3 * 2}
    chosen = (columns["estimator"] == "waves") & (columns["num_features"] == 12) & (columns["measure"] == "mse")
    assert columns["value"][chosen] == curve["mse"].value[1, 1]
    assert columns["closed_form"][chosen] == curve.closed_forms["mse"][1, 1]


def test_names_tell_estimators_apart(pairs):
    def names(estimators):
        return error_curve(estimators, *pairs, num_features=8, num_draws=2, rng=0).names

    positive = rf.PositiveFeatures()
    assert names([positive, rf.TrigonometricFeatures()]) == ("PositiveFeatures", "TrigonometricFeatures")
    assert names([positive, rf.PositiveFeatures(coupling="simplex")]) == (
        "PositiveFeatures, Orthogonal", "PositiveFeatures, Simplex",
    )  # fmt: skip
    with pytest.raises(ValueError, match="two estimators are equal"):
        names([positive, positive])
    with pytest.raises(ValueError, match="two names are the same as text: 1, '1'"):
        names({1: positive, "1": rf.TrigonometricFeatures()})


def test_files(tmp_path, pairs, heads):
    curves = [
        error_curve(ESTIMATORS, *pairs, num_features=[8, 12], num_draws=5, rng=0),
        error_curve(rf.PositiveFeatures(), query=heads[0], key=heads[1], value=heads[2], num_features=8, num_draws=2),
    ]
    rf.save(tmp_path / "curves", curves)
    for curve, again in zip(curves, rf.load(tmp_path / "curves"), strict=True):
        assert (again.names, again.num_draws, again.measures) == (curve.names, curve.num_draws, curve.measures)
        assert str(again) == str(curve)
        for name, column in curve.columns().items():
            assert np.array_equal(column, again.columns()[name], equal_nan=name == "closed_form")
        assert np.array_equal(again.squares, curve.squares)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "give x and y for kernel values, or query, key and value"),
        ({"x": np.ones((2, 3))}, TypeError, "give x and y"),
        ({"x": np.ones((2, 3)), "y": np.ones((3, 3))}, ValueError, r"For all pairs give x\[:, None\] and y"),
        ({"x": np.ones((2, 3)), "y": np.ones((2, 3)), "scale": 1.0}, ValueError, "scale is for attention outputs"),
        ({"x": np.ones((2, 3)), "y": np.ones((2, 3)), "num_draws": 1}, ValueError, "at least 2"),
        ({"x": np.ones((2, 3)), "y": np.ones((2, 3)), "num_features": []}, ValueError, "one width"),
        ({"x": np.ones((2, 3)), "y": np.ones((2, 3)), "estimators": []}, ValueError, "no estimators"),
        ({"x": np.ones((2, 3)), "y": np.ones((2, 3)), "estimators": rf.PositiveFeatures}, TypeError, "Positive"),
        ({"x": np.ones((2, 3)), "y": np.ones((2, 3)), "estimators": "RFF"}, TypeError, "objects such as .*got 'RFF'"),
        ({"x": np.ones((2, 3)), "y": np.ones((2, 3)), "estimators": rf.TrigonometricFeatures(), "num_features": 7},
         ValueError, "nearest: 6, 8"),
        ({"x": np.ones((2, 3)), "y": np.ones((2, 3)), "progress": 3}, TypeError, "progress must be True, False"),
    ],
    ids=lambda case: None,
)  # fmt: skip
def test_errors(arguments, error, message):
    arguments = {"estimators": rf.PositiveFeatures(), "num_features": 8} | arguments
    with pytest.raises(error, match=message):
        error_curve(arguments.pop("estimators"), **arguments)


def test_unknown_measure(pairs):
    curve = error_curve(rf.PositiveFeatures(), *pairs, num_features=8, num_draws=2, rng=0)
    with pytest.raises(ValueError, match="measure must be one of relative_mse, relative_bias"):
        curve["rmse"]
