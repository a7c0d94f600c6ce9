"""audit_attention: right attention passes on every library it knows, and every planted defect is found by its law."""

import numpy as np
import pytest

import randfeat as rf
from randfeat._array import namespace
from randfeat.testing import audit_attention

PHI = rf.PositiveFeatures().draw(16, 64, rng=0)


def exact(is_causal=False):
    """softmax_attention with and without a mask."""
    return (
        lambda q, k, v: rf.softmax_attention(q, k, v, is_causal=is_causal),
        lambda q, k, v, mask: rf.softmax_attention(q, k, v, is_causal=is_causal, key_mask=mask[:, None]),
    )


def linear(is_causal=False, estimator=None):
    """linear_attention with and without a mask; the map goes where the inputs are."""
    phi = PHI if estimator is None else estimator.draw(16, 64, rng=0)

    def attend(q, k, v, mask=None):
        mask = None if mask is None else mask[:, None]
        return rf.linear_attention(q, k, v, phi.to(q), is_causal=is_causal, key_mask=mask)

    return attend, attend


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("make", [exact, linear])
def test_right_attention_passes(make, is_causal, library):
    pytest.importorskip(library)
    fn, masked = make(is_causal)
    report = audit_attention(fn, masked=masked, is_causal=is_causal, library=library, length=66)
    assert report.passed, str(report)
    expected = {"unbiased"} | ({"bfloat16", "gradient"} if library == "numpy" else set())
    expected |= set() if is_causal else {"causality"}
    assert {f.check for f in report.findings if f.verdict == "not applicable"} == expected
    assert report["accuracy"].number < (1e-12 if make is exact else 2.0)
    assert report["shift of keys"].verdict == ("pass" if make is exact else "measured")


def test_float32_passes(torch):
    fn, masked = linear(True)
    report = audit_attention(fn, masked=masked, is_causal=True, library="torch", length=66, dtype="float32")
    assert report.passed, str(report)


def test_signed_features_leave_the_range_of_the_values():
    """Not a mistake of the code: a property of the estimator, and the report says it."""
    report = audit_attention(linear(estimator=rf.TrigonometricFeatures())[0], length=66)
    assert report["range of values"].number > 0.1
    assert report["row sums"].verdict == report["logit scale"].verdict == "pass"


# the planted defects: plain Performer attention, wrong in one way --------------------------------------------------


def features(x, *, top, floor=0.0, scale=True):
    """`exp(w·x - |x|²/2)` with a shift of the exponents, and possibly a constant added."""
    xp = namespace(x)
    rows = PHI.to(x).arrays["rows"]
    x = x * x.shape[-1] ** -0.25 if scale else x
    log = x @ xp.matrix_transpose(rows) - xp.sum(x * x, axis=-1, keepdims=True) / 2
    return xp.exp(log - top(xp, log)) + floor


def nothing(xp, log):
    return 0.0


def row_top(xp, log):
    return xp.max(log, axis=-1, keepdims=True)


def all_top(xp, log):
    return xp.max(log, axis=(-1, -2), keepdims=True)


def favor(*, is_causal=False, query_top=row_top, key_top=all_top, **options):
    def attend(q, k, v, keep=None):
        xp = namespace(q)
        weights = features(q, top=query_top, **options) @ xp.matrix_transpose(features(k, top=key_top, **options))
        if is_causal:
            weights = xp.tril(weights)
        if keep is not None:
            weights = xp.where(keep[:, None, None, :], weights, 0 * weights)
        return (weights @ v) / xp.sum(weights, axis=-1, keepdims=True)

    return attend


def future_key(q, k, v):
    """One key too far."""
    weights = np.tril(np.exp(q @ np.swapaxes(k, -1, -2) / 4), 1)
    return weights @ v / weights.sum(-1, keepdims=True)


def without_own_key(q, k, v):
    weights = np.tril(np.exp(q @ np.swapaxes(k, -1, -2) / 4), -1)
    return weights @ v / weights.sum(-1, keepdims=True)


def signed_values(q, k, v):
    """Weights that sum to 1, some of them negative."""
    return 2 * rf.softmax_attention(q, k, v) - rf.softmax_attention(q / 2, k, v)


def in_place(q, k, v):
    q *= 0.5
    return rf.softmax_attention(2 * q, k, v)


def normalized_values(q, k, v):
    return rf.softmax_attention(q, k, v / np.max(np.abs(v), initial=0.0, axis=-1, keepdims=True))


class Redrawn:
    """Other features at every call."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, q, k, v):
        return rf.linear_attention(q, k, v, PHI.redraw(self.rng))


DEFECTS = {
    "epsilon in the features": (favor(floor=1e-6), {}, {"no floor"}),
    "the largest key in causal use": (favor(is_causal=True), {"is_causal": True}, {"causality"}),
    "no scale": (favor(scale=False), {}, {"logit scale"}),
    "scale twice": (lambda q, k, v: rf.softmax_attention(q, k, v, scale=1 / 16), {}, {"logit scale"}),
    "no stabilization": (favor(query_top=nothing, key_top=nothing), {}, {"inputs × 100, float64"}),
    "one key too far": (future_key, {"is_causal": True}, {"causality", "first row"}),
    "without the own key": (without_own_key, {"is_causal": True}, {"first row"}),
    "negative weights": (signed_values, {}, {"range of values"}),
    "unnormalized": (lambda q, k, v: 0.9 * rf.softmax_attention(q, k, v), {}, {"row sums", "one row"}),
    "not linear": (normalized_values, {}, {"linear"}),
    "writes over its input": (in_place, {}, {"inputs untouched"}),
    "random at every call": (Redrawn(), {}, {"repeatable"}),
    "float32 out": (lambda q, k, v: rf.softmax_attention(q, k, v).astype(np.float32), {}, {"float16", "output"}),
    "transposed": (lambda q, k, v: np.swapaxes(rf.softmax_attention(q, k, v), -1, -2), {}, {"output"}),
    "raises": (lambda q, k, v: 1 / 0, {}, {"output", "row sums", "float16", "one row"}),
    "another library": (lambda q, k, v: [1.0, 2.0], {}, {"output"}),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_found(defect):
    fn, options, expected = DEFECTS[defect]
    report = audit_attention(fn, length=66, **options)
    assert expected <= {finding.check for finding in report.failed}, str(report)


def test_the_twin_of_the_defects_is_right():
    """Without its defect, the naive attention passes wherever its single shift does not lose the keys."""
    report = audit_attention(favor(), masked=favor(), length=66)
    assert {finding.check for finding in report.failed} <= {
        "inputs × 10, float64", "inputs × 10, float32", "inputs × 100, float64", "inputs × 100, float32", "no floor",
        "no rows", "all masked", "masked content", "float16",
    }, str(report)  # fmt: skip


def test_wrong_side_of_the_mask_is_found():
    fn, masked = exact()
    report = audit_attention(fn, masked=lambda q, k, v, mask: masked(q, k, v, ~mask), length=66)
    assert {finding.check for finding in report.failed} == {"masked keys", "masked content"}
    ignored = audit_attention(fn, masked=lambda q, k, v, mask: fn(q, k, v), length=66)
    assert {finding.check for finding in ignored.failed} == {"masked keys", "masked content"}


def test_mask_by_a_large_negative_logit_is_found():
    """-1e4 instead of -inf: right at ordinary logits only."""

    def masked(q, k, v, mask):
        log = np.where(mask[:, None, None], q @ np.swapaxes(k, -1, -2) / 4, -1e4) - 5000
        weights = np.exp(log - log.max(-1, keepdims=True))
        return weights @ v / weights.sum(-1, keepdims=True)

    report = audit_attention(exact()[0], masked=masked, length=66)
    assert report["masked keys"].verdict == "pass"
    everything = audit_attention(exact()[0], masked=lambda q, k, v, m: masked(q, k, v, m) / m.any(), length=66)
    assert everything["all masked"].verdict == "fail"


def test_gradient_through_half_of_it_is_found(torch):
    """A weight treated as a constant, and a shift that does not cancel (an epsilon) with its gradient stopped."""
    half = audit_attention(lambda q, k, v: rf.softmax_attention(q, k.detach(), v), library="torch", length=66)
    assert {finding.check for finding in half.failed} == {"gradient"}

    def stopped(xp, log):
        return xp.max(log, dim=-1, keepdim=True)[0].detach()

    floor = audit_attention(favor(query_top=stopped, key_top=stopped, floor=1e-2), library="torch", length=66)
    assert floor["gradient"].verdict == "fail"


def estimates(coupling):
    def estimate(q, k, seed):
        return coupling.draw(16, 32, rng=seed, like=q).estimate(q / 2, k / 2)  # 16**-0.25

    return estimate


def test_bias_of_the_kernel_estimates():
    """Unbiased estimators pass, a directional bias of 2 % does not."""
    fn = linear()[0]
    right = audit_attention(fn, estimate=estimates(rf.PositiveFeatures()), length=8)["unbiased"]
    assert right.verdict == "pass", right
    biased = audit_attention(
        fn, estimate=lambda q, k, seed: 1.03 * estimates(rf.PositiveFeatures())(q, k, seed), length=8
    )
    assert biased["unbiased"].verdict == "fail"


def test_report_reads_as_a_table():
    report = audit_attention(exact()[0], length=8, name="exact")
    lines = str(report).splitlines()
    assert lines[0] == "audit of exact: numpy, float64, not causal, d = 16, length 8"
    assert lines[1].split() == ["check", "verdict", "number", "meaning"]
    assert lines[-1].startswith(f"{len(report.findings)} checks: ")
    assert len(lines) == len(report.findings) + 3
    assert max(map(len, lines)) <= 120
    with pytest.raises(KeyError, match="there are output"):
        report["speed"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fn": 3}, TypeError, "fn must be a function .* got int"),
        ({"masked": np.ones(3)}, TypeError, "masked must be a function .* got ndarray"),
        ({"library": "tensorflow"}, ValueError, "library numpy or torch"),
        ({"dtype": "float16"}, ValueError, "dtype float32 or float64"),
        ({"dim": 1}, ValueError, "dim must be at least 2"),
        ({"length": 3}, ValueError, "length at least 8"),
        ({"length": 3.5}, TypeError, "length"),
        ({"scale": -1.0}, ValueError, "scale"),
    ],
)
def test_misuse(options, error, message):
    with pytest.raises(error, match=message):
        audit_attention(**{"fn": rf.softmax_attention, **options})
