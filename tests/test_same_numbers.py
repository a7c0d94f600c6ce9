"""The comparison of two checkouts: what its digest sees, what its random calls cover. No checkout is compared here."""

import math
from collections import Counter

import numpy as np
import pytest

from experiments.benchmarks.same_numbers import catalogue, decisions
from experiments.benchmarks.same_numbers.calls import FUNCTIONS, GATED, KERNELS, OTHERS, SMOOTH, random_calls
from experiments.benchmarks.same_numbers.comparison import Comparison, Difference
from experiments.benchmarks.same_numbers.digests import (
    attempt_with_message,
    digest,
    error_of,
    largest_difference,
    named_arrays,
)
from experiments.benchmarks.same_numbers.performing import perform


def test_a_digest_sees_one_flipped_bit_the_sign_of_zero_the_dtype_the_shape_and_the_name():
    x = np.array([[1.0, 0.0]], dtype=np.float32)
    flipped = (x.view(np.uint32) ^ np.array([[1, 0]], dtype=np.uint32)).view(np.float32)
    others = [{"x": flipped}, {"x": np.array([[1.0, -0.0]], dtype=np.float32)}, {"x": x.astype(np.float64)}]
    others += [{"x": x[0]}, {"y": x}, {"x": x, "y": x}]
    assert digest({"x": x}) == digest({"x": x.copy()})
    assert len({digest(arrays) for arrays in ({"x": x}, *others)}) == 1 + len(others)


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


def test_an_error_is_a_result_by_type_and_the_beginning_of_its_message():
    def fail():
        raise ValueError("x" * 100)

    assert error_of(named_arrays(attempt_with_message(fail))) == "ValueError: " + "x" * 60
    assert error_of({"output": np.zeros(1)}) is None


def test_a_comparison_fails_for_what_differs_and_what_is_gone_not_for_what_is_new():
    found = Comparison({"a": "1", "b": "2"}, [], gone=[], new=["b"], errors={}, num_calls=0)
    assert found.is_same
    assert found.lines() == ["1 cases, 1 equal, 0 differ", "new: 1 cases, b for example"]
    assert not Comparison({"a": "1"}, [], gone=["b"], new=[], errors={}, num_calls=0).is_same
    differs = Comparison({"a": "1"}, [Difference("a", 0.25, "output")], [], [], {"call 0: f": "E"}, num_calls=1)
    assert not differs.is_same
    assert found.compares_enough
    assert not differs.compares_enough
    assert differs.lines() == [
        "1 cases, 0 equal, 1 differ",
        "differs by 2.5e-01: a (output)",
        "1 of 1 random calls raise errors, so they compare little:",
        "call 0: f: E",
    ]


def test_random_calls_are_the_same_ones_for_the_same_seed_and_fewer_are_the_first_ones():
    calls = list(random_calls(40, 0))
    assert calls == list(random_calls(40, 0)) == list(random_calls(60, 0))[:40]
    assert calls != list(random_calls(40, 1))
    assert len({call.title for call in calls}) == 40


def test_the_default_number_of_calls_covers_every_option():
    calls = list(random_calls(200, 0))
    options = Counter((name, value) for call in calls for name, value in call.options.items())
    words = {
        "decay": GATED,
        "relative_bias": ("shared", "per head"),
        "key_ends": ("shared", "per head"),
        "key_mask": ("shared", "per head"),
        "cu_seqlens": ("shared", "pair"),
        "method": ("linear", "auto", "exact"),
        "layout": ("blhd",),
        "num_threads": (1, 2),
        "is_causal": (True,),
        "enable_gqa": (True,),
        "return_state": (True,),
    }
    missing = [(name, value) for name, values in words.items() for value in values if (name, value) not in options]
    assert not missing
    names = {name for name, _ in options}
    assert names == {*words, "window", "causal_offset", "key_lengths", "initial_state", "output", "final_state"}
    assert {call.function for call in calls} == set(FUNCTIONS)
    assert {call.features for call in calls} == {*SMOOTH, *OTHERS, *KERNELS}
    assert {call.dtype for call in calls} == {"float16", "float32", "float64"}
    assert {call.maps for call in calls} == {"one", "per head", "per key head"}
    assert {0, 1, 64, 65, 257, 300} <= {call.num_queries for call in calls} & {call.num_keys for call in calls}


def test_random_calls_are_allowed_and_give_the_same_bits_twice():
    calls = list(random_calls(8, 0))
    results = [named_arrays(perform(call)) for call in calls]
    assert [error_of(arrays) for arrays in results] == [None] * len(calls)
    assert [digest(arrays) for arrays in results] == [digest(named_arrays(perform(call))) for call in calls]


def test_cases_of_the_catalogue_have_names_of_their_own_and_compute_numbers():
    sources = (catalogue.kernel_cases, catalogue.coupling_cases, catalogue.estimator_cases, decisions.decision_cases)
    cases = [list(source(0)) for source in sources]
    names = [name for part in cases for name, _ in part]
    assert len(set(names)) == len(names)
    for part in cases:
        for name, compute in part[:3]:
            assert error_of(named_arrays(compute())) is None, name
