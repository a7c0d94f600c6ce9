"""The laws of softmax attention. Each is one function, which yields findings about the audited function."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from randfeat._array import as_host, dtype_name, gradients
from randfeat.attention import softmax_attention
from randfeat.testing.findings import Finding
from randfeat.testing.report import POWER_Z, bonferroni
from randfeat.testing.subject import LEAD, Subject, largest, overshoot

LARGE = (10, 100)  # factors of the inputs
DRAWS = 2000  # of features, for the check of bias
FLOOR = 1e-20  # upper limit of the relative weight of a key whose logit is thousands below the largest


def described(array: Any) -> str:
    """Type, shape and dtype of an array, as `ndarray (2, 3, 130, 16) float64`."""
    if not hasattr(array, "dtype"):
        return type(array).__name__
    return f"{type(array).__name__} {tuple(array.shape)} {dtype_name(array.dtype)}"


def outputs(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """The output has the library, dtype and shape of the values and repeats exactly; the inputs are left unchanged."""
    inputs = subject.problem(rng)
    arrays = subject.arrays(*inputs)
    output = subject.fn(*arrays)
    expected = described(arrays[2])
    got = described(output)
    yield Finding.decided(check, got == expected, None, f"{got}, expected {expected}")
    touched = max(largest(as_host(array, "input") - x) for array, x in zip(arrays, inputs, strict=True))
    yield Finding.bounded("inputs untouched", touched, 0.0, "largest change of an input")
    change = largest(as_host(output, "the output") - subject.call(*inputs))
    yield Finding.bounded("repeatable", change, 0.0, "largest change at a second call")


def row_sums(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """If all values are 1, all outputs are 1."""
    query, key, value = subject.problem(rng)
    worst = largest(subject.call(query, key, np.ones_like(value)) - 1)
    yield Finding.bounded(check, worst, subject.rounding, "largest |Σ_j A_ij - 1|")


def linearity(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Outputs are linear in the values."""
    query, key, value = subject.problem(rng)
    other = value[..., ::-1, :]
    difference = subject.call(query, key, 2 * value - other) - 2 * subject.call(query, key, value)
    worst = largest(difference + subject.call(query, key, other)) / largest(value)
    yield Finding.bounded(check, worst, subject.rounding, "deviation from linear in the values")


def hull(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Outputs stay within the range of the values; for unit vectors as values, the weights lie between 0 and 1."""
    query, key, value = subject.problem(rng)
    units = np.broadcast_to(np.eye(subject.length), (*LEAD, subject.length, subject.length))
    worst = overshoot(subject.call(query, key, value), value)
    worst = max(worst, overshoot(subject.weights(query, key), units)) if np.isfinite(worst) else worst
    yield Finding.bounded(check, worst, subject.rounding, "overshoot over the range of the values")


def logit_scale(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """The part of the output odd in queries and in keys, regressed on that of exact attention, has slope 1.

    Noise of random features that depends on the queries alone, or on the keys alone, cancels. The slope that is left is
    a multiple of tr(WᵀW)/(m d) = 1 ± √(2/(m d)). A missing or doubled 1/√d changes it by a factor √d; the limit is √√d.
    """
    query, key, value = subject.problem(rng)
    size = np.sqrt(0.5 / subject.scale)
    query, key = (size * x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))

    def odd(function: Callable[..., np.ndarray]) -> np.ndarray:
        terms = [a * b * function(a * query, b * key, value) for a in (1, -1) for b in (1, -1)]
        return np.sum(terms, axis=0)

    expected = odd(functools.partial(softmax_attention, is_causal=subject.is_causal, scale=subject.scale))
    slope = float(np.sum(odd(subject.call) * expected) / np.sum(expected**2))
    limit = subject.dim**0.25
    right = bool(1 / limit < slope < limit)
    yield Finding.decided(check, right, slope, f"response to the logits, exact = 1, {1 / limit:.2g} to {limit:.2g}")


def accuracy(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Relative error against exact attention, beside the error of the average of the values."""
    query, key, value = subject.problem(rng)
    exact, average = (
        softmax_attention(q, key, value, is_causal=subject.is_causal, scale=subject.scale) for q in (query, 0 * query)
    )
    size = np.linalg.norm(exact)
    mean = np.linalg.norm(average - exact) / size
    error = float(np.linalg.norm(subject.call(query, key, value) - exact) / size)
    yield Finding.measured(check, error, f"relative error, averages of the values have {mean:.2g}")


def shift(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Subtracting one vector from all keys leaves exact attention unchanged, and changes most estimates."""
    query, key, value = subject.problem(rng)
    before = subject.call(query, key, value)
    after = subject.call(query, key - rng.standard_normal(subject.dim), value)
    change = float(np.linalg.norm(after - before) / np.linalg.norm(before))
    meaning = "relative change when all keys are shifted"
    if change < np.sqrt(np.finfo(subject.dtype).eps):
        yield Finding.decided(check, True, change, meaning)
    else:
        yield Finding.measured(check, change, meaning)


def large_norms(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """With inputs times 10 and 100, outputs are finite and within the values, and small weights stay small."""
    query, key, value = subject.problem(rng)
    for factor in LARGE:
        for dtype in dict.fromkeys((subject.dtype, "float32")):
            output = subject.call(factor * query, factor * key, value, dtype=dtype)
            worst = overshoot(output, value.astype(dtype).astype(np.float64))
            limit = 16 * subject.length * float(np.finfo(dtype).eps)
            label = f"inputs × {factor}, {dtype}"
            yield Finding.bounded(label, worst, limit, "overshoot over the range of the values")
    half = subject.length // 2
    weights = np.abs(subject.weights(LARGE[-1] * query, LARGE[-1] * key))[..., half:, :]
    smallest = np.min(weights[..., :half], axis=-1)  # of keys that causal attention sees, too
    floor = largest(smallest / np.max(weights, axis=-1))
    yield Finding.bounded("no floor", floor, FLOOR, f"smallest weight over largest, inputs × {LARGE[-1]}")


def causality(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Changing later keys and values changes no bit of earlier outputs; the first output is the first value."""
    if not subject.is_causal:
        yield Finding.not_applicable(check, "not causal")
        return
    query, key, value = subject.problem(rng)
    before = subject.call(query, key, value)
    worst = largest(before[..., 0, :] - value[..., 0, :]) / largest(value)
    yield Finding.bounded("first row", worst, subject.rounding, "largest |out_0 - v_0|")
    worst = 0.0
    for cut in sorted({1, subject.length // 2, subject.length - 1}):
        for factor in (-1, 1000):
            later_key, later_value = key.copy(), value.copy()
            later_key[..., cut:, :] *= factor
            later_value[..., cut:, :] *= factor
            change = subject.call(query, later_key, later_value)[..., :cut, :] - before[..., :cut, :]
            worst = max(worst, largest(change))
    yield Finding.bounded(check, worst, 0.0, "largest change of an output by later keys")


def masks(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Masked keys count as absent: outputs are the same as without them, whatever they contain."""
    if subject.masked is None:
        yield Finding.not_applicable(check, "no function with a mask was given")
        return
    call = functools.partial(subject.call, fn=subject.masked)
    query, key, value = subject.problem(rng)
    kept = 2 * subject.length // 3
    order = np.stack([np.arange(subject.length) if subject.is_causal else rng.permutation(subject.length)] * LEAD[0])
    mask = np.zeros((LEAD[0], subject.length), bool)
    np.put_along_axis(mask, order[:, :kept], True, axis=-1)
    output = call(query, key, value, mask)
    seen = np.nonzero(mask)[1].reshape(LEAD[0], 1, kept, 1)
    key_left, value_left = (np.take_along_axis(x, seen, axis=-2) for x in (key, value))
    rows = kept if subject.is_causal else subject.length
    expected = subject.call(query[..., :rows, :], key_left, value_left)
    worst = largest(output[..., :rows, :] - expected) / largest(value)
    yield Finding.bounded(check, worst, 16 * subject.rounding, "change when masked keys are left out")
    absent = ~mask[:, None, :, None]
    other = call(query, np.where(absent, 1000 * key, key), np.where(absent, 1000 * value, value), mask)
    change = largest(other - output) / largest(value)
    yield Finding.bounded("masked content", change, subject.rounding, "change by what masked keys hold")
    empty = largest(call(query, key, value, np.zeros_like(mask)))
    yield Finding.bounded("all masked", empty, largest(value), "largest output without any key")


def one_row(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """With one query and one key, the output is the value."""
    query, key, value = subject.problem(rng, 1)
    worst = largest(subject.call(query, key, value) - value) / largest(value)
    yield Finding.bounded(check, worst, subject.rounding, "largest |out - v| with one key")


def no_rows(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """With no query and no key, the output is empty, or a ValueError refuses the input."""
    inputs = subject.problem(rng, 0)
    try:
        shape = subject.call(*inputs).shape
    except ValueError as error:
        yield Finding(check, "pass", None, f"refused: {str(error).splitlines()[0][:60]}")
        return
    yield Finding.decided(check, shape == inputs[2].shape, None, f"{shape} from no query and no key")


def dtypes(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """float16, bfloat16 and float32 inputs give finite outputs of the same dtype, near the float64 result."""
    inputs = subject.problem(rng)
    for dtype in ("float16", "bfloat16", "float32"):
        if not hasattr(subject.xp, dtype):
            yield Finding.not_applicable(dtype, f"{subject.xp.__name__} has none")
            continue
        try:
            arrays = subject.arrays(*inputs, dtype=dtype)
            output = subject.fn(*arrays)
            name = dtype_name(output.dtype)
            exact = subject.call(*(as_host(x, "input") for x in arrays))
            error = largest(as_host(output, "the output") - exact) / largest(inputs[2])
            right = name == dtype and np.isfinite(error)
            yield Finding.decided(dtype, right, error, f"off {subject.dtype}; comes back as {name}")
        except Exception as failure:  # the next dtype may still work
            yield Finding.raised(dtype, failure)


def gradient(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """Gradients agree with central differences, and are finite even for inputs times 100."""
    inputs = subject.problem(rng, 9)
    cotangent = rng.standard_normal(inputs[2].shape)

    def gradients_at(*point: np.ndarray) -> list[np.ndarray] | None:
        *arrays, weights = subject.arrays(*point, cotangent)
        results = gradients(subject.fn, arrays, weights)
        return None if results is None else [as_host(x, "gradient") for x in results]

    computed = gradients_at(*inputs)
    if computed is None:
        yield Finding.not_applicable(check, f"{subject.xp.__name__} does not differentiate")
        return
    step = float(np.finfo(subject.dtype).eps) ** (1 / 3)
    worst = 0.0
    for position, slope in enumerate(computed):
        for direction in rng.standard_normal((3, *slope.shape)):
            ends = []
            for sign in (1, -1):
                point = list(inputs)
                point[position] = point[position] + sign * step * direction
                ends.append(np.sum(cotangent * subject.call(*point)))
            error = abs((ends[0] - ends[1]) / (2 * step) - np.sum(slope * direction))
            worst = max(worst, error / np.linalg.norm(slope)) if np.isfinite(error) else np.nan
    yield Finding.bounded(check, worst, 20 * step, "difference from central differences, relative")
    query, key, value = inputs
    far = gradients_at(LARGE[-1] * query, LARGE[-1] * key, value)
    size = max(largest(slope) for slope in far or [])
    yield Finding.bounded(f"gradient, inputs × {LARGE[-1]}", size, float(np.finfo(subject.dtype).max), "largest entry")


def unbiased(check: str, subject: Subject, rng: np.random.Generator) -> Iterator[Finding]:
    """The mean of the unnormalized estimates over many draws is the kernel."""
    if subject.estimate is None:
        yield Finding.not_applicable(check, "no function of estimates was given")
        return
    size = np.sqrt(0.3 / subject.scale)
    query, key = (
        size * x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rng.standard_normal((2, 3, subject.dim))
    )
    query, key = (as_host(x, "input") for x in subject.arrays(query, key))
    exact = np.exp(subject.scale * query @ key.T)
    arrays = subject.arrays(query, key)
    sample = np.stack([as_host(subject.estimate(*arrays, seed), "the estimate") for seed in range(DRAWS)]) / exact - 1
    scale = np.maximum(sample.std(axis=0, ddof=1) / np.sqrt(DRAWS), subject.rounding)
    limit = bonferroni(1e-6, exact.size)
    caught = float((limit + POWER_Z) * np.max(scale))
    yield Finding.bounded(check, largest(sample.mean(axis=0) / scale), limit, f"|z|; a bias of {caught:.1%} is seen")


LAWS: dict[str, Callable[[str, Subject, np.random.Generator], Iterator[Finding]]] = {
    "output": outputs,
    "row sums": row_sums,
    "linear": linearity,
    "range of values": hull,
    "logit scale": logit_scale,
    "accuracy": accuracy,
    "shift of keys": shift,
    "large norms": large_norms,
    "causality": causality,
    "masked keys": masks,
    "one row": one_row,
    "no rows": no_rows,
    "dtypes": dtypes,
    "gradient": gradient,
    "unbiased": unbiased,
}
