"""The comparison of two checkouts: what it sees, what its random calls cover. No checkout is compared here."""

import math

import numpy as np
import pytest

from experiments.benchmarks.same_numbers.calls import FEATURES, OPTIONS, RELATIONS, random_calls
from experiments.benchmarks.same_numbers.checkout import all_cases
from experiments.benchmarks.same_numbers.comparison import Comparison
from experiments.benchmarks.same_numbers.results import attempt, error_of, largest_difference, named_arrays


def test_one_flipped_bit_the_sign_of_zero_the_dtype_the_shape_and_the_name_are_seen():
    x = np.array([[1.0, 0.0]], dtype=np.float32)
    flipped = (x.view(np.uint32) ^ np.array([[1, 0]], dtype=np.uint32)).view(np.float32)
    others = [{"x": flipped}, {"x": np.array([[1.0, -0.0]], dtype=np.float32)}, {"x": x.astype(np.float64)}]
    others += [{"x": x[0]}, {"y": x}, {"x": x, "y": x}]
    assert largest_difference({"x": x}, {"x": x.copy()}) is None
    assert all(largest_difference({"x": x}, other) is not None for other in others)


def test_results_are_named_by_the_way_to_them():
    arrays = named_arrays({"a": [np.zeros(2), {"b": 1.5}], "c": None})
    assert {name: array.tolist() for name, array in arrays.items()} == {"a.0": [0, 0], "a.1.b": 1.5, "c": "None"}


@pytest.mark.parametrize(
    ("ours", "theirs", "relative", "where"),
    [
        ([1.0, 2.0], [1.0, 4.0], 0.5, "x"),
        ([0.0], [-0.0], 0.0, "x"),
        ([1.0, math.nan], [1.5, math.nan], 1 / 3, "x"),
        ([1.0, math.nan], [1.0, 2.0], math.inf, "x: NaN or infinity at other places"),
        ([1.0], [[1.0]], math.inf, r"x: shape (1,) against (1, 1)"),
        ("ValueError", [1.0], math.inf, "x: ValueError against [1.]"),
        ([1.0], [1], 0.0, "x: dtype float64 against int64"),
        ([1.0], [0.0], math.inf, "x"),
    ],
)
def test_the_largest_difference_is_relative_to_the_largest_number(ours, theirs, relative, where):
    same = np.arange(3.0)
    found = largest_difference({"same": same, "x": np.asarray(ours)}, {"same": same, "x": np.asarray(theirs)})
    assert found == (pytest.approx(relative), where)


def test_an_error_is_a_result():
    def fail():
        raise ValueError("x")

    assert error_of(named_arrays(attempt(fail))) == "ValueError"
    assert error_of({"output": np.zeros(1)}) is None


def test_a_comparison_fails_for_what_differs_and_what_is_gone_not_for_what_is_new():
    one, two = {"output": np.array([1.0])}, {"output": np.array([2.0])}
    found = Comparison(num_calls=0, new=["b"])
    found.add("a", one, one)
    assert found.is_same
    assert found.lines() == ["1 cases, 1 equal, 0 differ", "new: 1 cases, b for example"]
    assert not Comparison(num_calls=0, gone=["b"]).is_same
    found.add("c", one, two)
    assert not found.is_same
    assert found.lines()[:2] == ["2 cases, 1 equal, 1 differ", "differs by 5.0e-01: c (output)"]


def test_a_comparison_fails_where_calls_raise_the_same_errors():
    failed, found = named_arrays(attempt(int, "x")), Comparison(num_calls=1)
    found.add("call 0: f", failed, failed)
    assert not found.is_same
    assert found.lines() == [
        "1 cases, 1 equal, 0 differ",
        "1 of 1 random calls raise errors, so they compare little:",
        "call 0: f: ValueError",
    ]


def test_random_calls_are_the_same_ones_for_the_same_seed_and_fewer_are_the_first_ones():
    titles = [[call.title for call in random_calls(*which)] for which in ((40, 0), (40, 0), (60, 0), (40, 1))]
    assert titles[0] == titles[1] == titles[2][:40]
    assert titles[0] != titles[3]
    assert len(set(titles[0])) == 40


def test_the_default_number_of_calls_covers_every_option():
    calls = list(random_calls(200, 0))
    found = {(name, value) for call in calls for name, value in call.options.items()}
    words = RELATIONS | {name: words for name, words, *_ in OPTIONS} | {"is_causal": (True,), "enable_gqa": (True,)}
    assert {name for name, _ in found} == set(words)
    numbers = ("causal_offset", "window")  # of which one or other may be missing
    assert {(name, word) for name in words.keys() - set(numbers) for word in words[name]} <= found
    for function, features in FEATURES.items():
        assert {call.features for call in calls if call.function == function} == set(features)
    assert {call.dtype for call in calls} == {"float16", "float32", "float64"}
    assert {call.maps for call in calls} == {"one", "per head", "per key head"}
    assert {0, 1, 64, 65, 257, 300} <= {call.num_queries for call in calls} & {call.num_keys for call in calls}


def test_random_calls_are_allowed_and_give_the_same_bits_twice():
    for call in random_calls(8, 0):
        results = [named_arrays(call.perform()) for _ in range(2)]
        assert largest_difference(*results) is None, call.title


def test_cases_have_names_of_their_own_and_compute_numbers():
    cases = dict(all_cases(3, 0))
    assert len(cases) == sum(1 for _ in all_cases(3, 0))
    for kind in ("kernel", "coupling", "estimator PositiveFeatures, own rows", "adapt", "predicted error", "moments"):
        name = next(name for name in cases if name.startswith(kind))
        assert error_of(named_arrays(cases[name]())) is None, name
