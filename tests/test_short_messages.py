"""Errors name what was given in a few words, although it may be a large array or a long list."""

import dataclasses
import inspect

import numpy as np
import pytest

import randfeat as rf
from randfeat import _hints

LONGEST = 700
LARGE = {"array": np.full((100, 40), -1.5), "row": np.full(300, np.nan), "list": [-1.5] * 300}
Q, K, V = np.random.default_rng(0).standard_normal((3, 2, 12, 4))
PHI = rf.PositiveFeatures().draw(dim=4, num_features=8, rng=0)
WAVES = rf.TrigonometricFeatures(rf.GaussianKernel()).draw(dim=4, num_features=8, rng=0)
CALLS = {
    "adapt": (rf.adapt, (Q, K)),
    "clustered_attention": (rf.clustered_attention, (Q, K, V)),
    "compress": (rf.compress, (K, V)),
    "compressed_attention": (rf.compressed_attention, (Q, K, V)),
    "draw": (rf.PositiveFeatures().draw, (4, 8)),
    "features": (PHI, (Q,)),
    "linear_attention": (rf.linear_attention, (Q, K, V, PHI)),
    "output_error": (rf.output_error, (Q, K, V, V)),
    "recommend": (rf.recommend, (Q, K, V)),
    "softmax_attention": (rf.softmax_attention, (Q, K, V)),
}
EXAMPLES = {
    name: cls.example() if hasattr(cls, "example") else cls()
    for package in (rf.kernels, rf.couplings, rf.estimators)
    for name, cls in vars(package).items()
    if name in package.__all__ and dataclasses.is_dataclass(cls) and not inspect.isabstract(cls)
    if hasattr(cls, "example") or all(f.default is not f.default_factory for f in dataclasses.fields(cls))
}


def message(call, *arguments, **options):
    """The error of a call; an empty text if there is none."""
    try:
        call(*arguments, **options)
    except (ValueError, TypeError, OverflowError) as error:
        return str(error)
    return ""


def check_short(text, name):
    assert len(text) <= LONGEST, f"{name}: {text[:300]} ... {len(text)} characters"


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("name", CALLS)
def test_options_of_functions(name, kind):
    call, arguments = CALLS[name]
    parameters = inspect.signature(call).parameters.items()
    options = [option for option, parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    texts = {option: message(call, *arguments, **{option: LARGE[kind]}) for option in options}
    for option, text in texts.items():
        check_short(text, option)
    assert any(texts.values())


@pytest.mark.parametrize("kind", LARGE)
def test_rows_of_about(kind):
    check_short(message(WAVES.about, LARGE[kind]), "row")


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("name", EXAMPLES)
def test_parameters_of_laws(name, kind):
    example = EXAMPLES[name]
    for field in dataclasses.fields(example):
        if field.init:
            check_short(message(dataclasses.replace, example, **{field.name: LARGE[kind]}), field.name)


def test_what_is_short_is_shown_as_it_is_written():
    for short in (1, -2.5, None, "posterior", [1, 2], (8,), {"a": 1}, np.float64(0.5), rf.Orthogonal()):
        assert _hints.short(short) == repr(short)
    assert _hints.short(np.arange(3)) == "array([0, 1, 2])"
    assert _hints.short(np.zeros((5, 2), np.float32)) == "ndarray of shape (5, 2) and dtype float32"
    assert _hints.short(list(range(9))) == "[0, 1, 2, 3, ...]"
