"""audit_attention: the laws of softmax attention, checked on any attention function."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from randfeat._array import as_bool, as_count, as_generator, namespace_named
from randfeat.kernels import SoftmaxKernel
from randfeat.kernels.softmax import resolve_scale
from randfeat.testing.attention_laws import LAWS
from randfeat.testing.findings import AuditReport, Finding
from randfeat.testing.subject import Subject


def audit_attention(
    fn: Callable[..., Any],
    *,
    library: Literal["numpy", "torch"] = "numpy",
    is_causal: bool = False,
    masked: Callable[..., Any] | None = None,
    estimate: Callable[..., Any] | None = None,
    scale: float | None = None,
    dim: int = 16,
    value_dim: int | None = None,
    length: int = 130,
    dtype: Literal["float32", "float64"] = "float64",
    rng: Any = 0,
    name: str | None = None,
) -> AuditReport:
    """Check the laws of softmax attention on any function `fn(query, key, value)`, exact or estimating.

    fn : called with arrays (2, 3, L, d), (2, 3, S, d), (2, 3, S, dv): batch, heads, length, dimension. The same inputs
        must give the same outputs, so draw the features beforehand.
    library : the array library of its inputs.
    is_causal : whether query i of `fn` sees the keys 0 .. i only; L = S then.
    masked : `masked(query, key, value, key_mask)`, the same attention with a bool mask (2, S), True = take part.
    estimate : `estimate(query, key, seed)`, (L, d), (S, d) -> (L, S), the estimate of `exp(scale · query keyᵀ)` from
        features drawn anew for each integer seed; checked for bias over 2000 draws.
    scale : the factor by which the function multiplies its logits; 1/√d by default.
    dim, value_dim, length : d, dv (d by default) and S.
    dtype : dtype of the inputs, except in the checks of dtypes themselves.
    name : what the report calls the function.

    Returns a report: which laws hold, which fail and by how much. If a law fails or the function raises an exception,
    this becomes a finding of the report, not an error. Laws that should hold to the last bit are tested to the last
    bit. Properties that an estimate need not have (invariance under a shift of all keys, accuracy) are only measured.

    >>> import randfeat as rf
    >>> report = audit_attention(rf.softmax_attention)
    >>> report.passed, report["row sums"].verdict
    (True, 'pass')
    """
    for label, function in (("fn", fn), ("masked", masked), ("estimate", estimate)):
        if not callable(function) and not (function is None and label != "fn"):
            raise TypeError(f"{label} must be a function of (query, key, ...), got {type(function).__name__}.")
    if library not in ("numpy", "torch") or dtype not in ("float32", "float64"):
        raise ValueError(f"expected library numpy or torch and dtype float32 or float64, got {library!r}, {dtype!r}.")
    is_causal = as_bool(is_causal, "is_causal")
    dim, length = as_count(dim, "dim"), as_count(length, "length")
    value_dim = dim if value_dim is None else as_count(value_dim, "value_dim")
    if dim < 2 or length < 8:
        raise ValueError(f"dim must be at least 2 and length at least 8, for laws to be tested, got {dim}, {length}.")
    scale = resolve_scale(scale, SoftmaxKernel(), dim)
    xp = namespace_named(library)
    subject = Subject(fn, masked, estimate, xp, is_causal, scale, dim, value_dim, length, dtype)
    findings = [
        finding
        for (check, function), generator in zip(LAWS.items(), as_generator(rng).spawn(len(LAWS)), strict=True)
        for finding in examined(check, function, subject, generator)
    ]
    name = getattr(fn, "__qualname__", type(fn).__name__) if name is None else name
    kind = "causal" if is_causal else "not causal"
    return AuditReport(f"{name}: {library}, {dtype}, {kind}, d = {dim}, length {length}", tuple(findings))


def examined(
    check: str, function: Callable[..., Iterator[Finding]], subject: Subject, rng: np.random.Generator
) -> list[Finding]:
    """Findings of one check; an exception raised by the audited function becomes a finding, too."""
    findings: list[Finding] = []
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            findings.extend(function(check, subject, rng))
    except Exception as error:  # of any kind: the audited function may raise anything
        findings.append(Finding.raised(check, error))
    return findings
