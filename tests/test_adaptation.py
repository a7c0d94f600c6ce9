"""adapt and what it is made of: exact identities, parameters per head, masks, edge cases, the anchor bound."""

import dataclasses

import numpy as np
import pytest

import randfeat as rf
from randfeat.testing import check_estimator

LEVELS = ("center", "balance", "dense", "weighted", "posterior")
RNG = np.random.default_rng(11)
SHIFT, ROTATION = np.array([0.2, -0.1, 0.1, 0.0]), np.linalg.qr(RNG.standard_normal((4, 4)))[0]
MATRIX = np.diag([1.1, 0.9, 1.2, 0.8]) + 0.05
ANCHORS, KEYS, BIASES = RNG.standard_normal((5, 4)), RNG.standard_normal((20, 4)), RNG.standard_normal(20) / 2
MASSES = np.log([0.1, 0.2, 0.3, 0.2, 0.2])
DENSE = rf.DenseExponentialFeatures(exponents=np.array([-0.1, -0.02, 0.0, 0.02]), rotation=ROTATION)


def posterior(s=1.0, **options):
    return rf.PosteriorFeatures(
        anchors=s * ANCHORS, keys=KEYS / s, log_masses=MASSES, log_biases=BIASES, defensive_exponent=-0.1, **options
    )


FITTED = [
    dataclasses.replace(DENSE, coupling="independent"),
    dataclasses.replace(DENSE, coupling="centered"),
    DENSE,
    rf.CenteredFeatures(query_shift=SHIFT, key_shift=-2 * SHIFT),
    rf.CenteredFeatures(base=rf.HyperbolicFeatures(coupling="simplex"), query_shift=SHIFT, key_shift=SHIFT),
    rf.CenteredFeatures(base=rf.TrigonometricFeatures(rf.GaussianKernel(1.3)), query_shift=SHIFT, key_shift=-2 * SHIFT),
    rf.BalancedFeatures(base=rf.OptimalPositiveFeatures(rf.GaussianKernel(0.8), exponent=-0.03), matrix=MATRIX),
    rf.CenteredFeatures(base=rf.BalancedFeatures(base=DENSE, matrix=MATRIX), query_shift=SHIFT, key_shift=SHIFT),
    posterior(0.5),
    posterior(2.0, coupling="independent"),
    rf.CenteredFeatures(base=rf.BalancedFeatures(base=posterior(), matrix=MATRIX), query_shift=SHIFT, key_shift=SHIFT),
]


@pytest.mark.parametrize(
    "estimator", FITTED, ids=lambda e: f"{type(e).__name__}-{type(getattr(e, 'base', e)).__name__}"
)
def test_contract(estimator):
    """False alarm 1e-6 per case. Where no variance is known, the report says so; the mean is always checked."""
    report = check_estimator(estimator, rng=3)
    assert sum(check.name.startswith("mean") for check in report.checks) >= 20


@pytest.mark.parametrize("estimator", FITTED, ids=lambda e: type(e).__name__)
def test_fitted_estimators_on_every_backend(estimator, xp):
    rf.testing.check_namespace(estimator, 4, 8 * estimator.features_per_row, xp)


def test_identities_hold_for_the_kernel_itself():
    """The weights of centering and balancing multiply to the kernel exactly: estimates agree at infinite width."""
    x, y = RNG.standard_normal((2, 6, 4)) / 2
    for kernel in (rf.SoftmaxKernel(0.7), rf.GaussianKernel(1.4)):
        estimator = rf.CenteredFeatures(
            base=rf.BalancedFeatures(base=rf.PositiveFeatures(kernel), matrix=MATRIX),
            query_shift=SHIFT,
            key_shift=SHIFT,
        )
        np.testing.assert_allclose(estimator.mean(x, y), kernel.pairwise(x, y), rtol=1e-13)
        opposite = -(kernel.unit(x) - SHIFT) @ MATRIX.T  # y' = -x': positive features are exact there
        y = (opposite @ MATRIX + SHIFT) / kernel.unit(np.ones(1))
        estimate = estimator.draw(4, 8, rng=0).estimate_pairwise(x, y)
        np.testing.assert_allclose(estimate, kernel.pairwise(x, y), rtol=1e-12)


@pytest.mark.parametrize("size", [1.0, 6.0])
def test_anchor_bound(size):
    """At an anchor the second moment of one row's share of the normalizer is below 1/((1-ε) α), whatever the logits.

    Independent rows, 200 maps of 64: the measured moment of a share that is itself bounded by the bound has a standard
    error below bound/√12800, so an excess of 5 % would be seen. Plain positive features exceed it by far at size 6.
    """
    anchors = size * ANCHORS
    estimator = rf.PosteriorFeatures(anchors=anchors, keys=KEYS, log_masses=MASSES, coupling="independent")
    phi = estimator.draw(4, 64, rng=0, batch_shape=(200,))

    def second_moment(phi):
        log_share = phi.queries(anchors).log_scale[..., :, None, :] + phi.keys(KEYS).log_scale[..., None, :, :]
        normalizer = np.log(np.exp(anchors @ KEYS.T).sum(axis=-1))
        share = 64 * np.exp(log_share - normalizer[:, None, None]).sum(axis=-2)
        return np.mean(share**2, axis=(0, 2))

    bound = estimator.anchor_bound()
    np.testing.assert_allclose(bound, 1 / (0.9 * np.exp(MASSES)), rtol=1e-12)
    assert np.all(second_moment(phi) < 1.05 * bound)
    if size > 1:
        for anchor, limit in zip(anchors, bound, strict=True):  # plain features: Σ_jk π_j π_k exp(z_j·z_k)
            log_pi = anchor @ KEYS.T - np.log(np.exp(anchor @ KEYS.T).sum())
            moment = rf.PositiveFeatures().log_joint_moment(anchor, KEYS) + log_pi + log_pi[:, None]
            assert np.exp(moment).sum() > 100 * limit


SPREAD = np.linspace(0.2, 1.6, 8)
Q, K, V = np.random.default_rng(0).standard_normal((3, 3, 60, 8))
Q, K = Q * SPREAD + 0.7, K * SPREAD[::-1] + 0.7  # off-center, anisotropic, and unbalanced


@pytest.mark.parametrize("level", LEVELS)
def test_levels_estimate_attention(level):
    """The error falls with the width towards exact attention: at 4096 features below half of that at 256.

    Its order is m^{-1/2}, a factor of 4, where the estimate has converged; less at level "center", where it has not.
    """
    estimator = rf.adapt(Q, K, level=level, num_features=256, rng=0)
    assert estimator.batch_shape == (3,)
    exact = rf.softmax_attention(Q, K, V)

    def error(width):
        maps = (estimator.draw(8, width, rng=seed) for seed in range(10))
        return np.median([np.linalg.norm(rf.linear_attention(Q, K, V, phi) - exact) for phi in maps])

    assert error(4096) < (0.65 if level == "center" else 0.5) * error(256)


def test_each_level_lowers_the_error():
    """Median over 20 draws at 64 features, on keys and queries of unequal covariances."""
    exact = rf.softmax_attention(Q, K, V)

    def error(estimator):
        maps = (estimator.draw(8, 64, rng=seed, batch_shape=(3,)) for seed in range(20))
        return np.median([np.linalg.norm(rf.linear_attention(Q, K, V, phi) - exact) for phi in maps])

    errors = [error(rf.PositiveFeatures())] + [error(rf.adapt(Q, K, level=level, num_features=64)) for level in LEVELS]
    assert errors[4] < errors[3] < errors[2] < errors[1] < errors[0]
    assert errors[5] < errors[3]


def test_adapt_is_frozen_deterministic_and_comparable():
    first, second, other = (rf.adapt(Q, K, num_features=32, rng=seed) for seed in (0, 0, 1))
    assert first == second
    assert hash(first) == hash(second)
    assert first != other
    assert "PosteriorFeatures" in repr(first)
    assert len(repr(first)) < 1000
    with pytest.raises(ValueError, match="read-only"):
        first.query_shift[0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.base = None


def test_heads_are_fitted_apart():
    """A head fitted alone and among others has the same parameters at levels without random choices."""
    for level in ("center", "balance", "dense"):
        together, alone = rf.adapt(Q, K, level=level), rf.adapt(Q[1], K[1], level=level)
        np.testing.assert_allclose(together.query_shift[1], alone.query_shift, rtol=1e-12)
    phi = rf.adapt(Q, K, num_features=32).draw(8, 32, rng=0)
    assert phi.batch_shape == (3,)
    with pytest.raises(ValueError, match=r"must end with \(3,\), the shape of the sets of parameters"):
        rf.adapt(Q, K, num_features=32).draw(8, 32, rng=0, batch_shape=(2,))


@pytest.mark.parametrize("level", LEVELS)
def test_masked_keys_do_not_count(level):
    mask = np.arange(60) < 40
    k = K.copy()
    k[:, 40:] = 1e6
    masked = rf.adapt(Q, k, level=level, num_features=32, key_mask=np.broadcast_to(mask, (3, 60)), rng=0)
    truncated = rf.adapt(Q, K[:, :40], level=level, num_features=32, rng=0)
    outputs = [
        rf.linear_attention(Q, K[:, :40], V[:, :40], estimator.draw(8, 32, rng=1)) for estimator in (masked, truncated)
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-8, atol=1e-10)


def test_grouped_heads():
    """One map per query head, fitted with the keys of its key head."""
    q = RNG.standard_normal((6, 50, 8))
    estimator = rf.adapt(q, K[:, :50], num_features=512, enable_gqa=True)
    assert estimator.batch_shape == (6,)
    out = rf.linear_attention(q, K, V, estimator.draw(8, 512, rng=0), enable_gqa=True)
    exact = rf.softmax_attention(q, K, V, enable_gqa=True)
    assert np.linalg.norm(out - exact) < 0.5 * np.linalg.norm(exact)
    with pytest.raises(ValueError, match="enable_gqa=True"):
        rf.adapt(q, K)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("queries", "keys"),
    [
        (np.zeros((5, 3)), np.zeros((4, 3))),
        (np.ones((5, 3)), np.ones((1, 3))),
        (np.outer(np.arange(5.0), [1.0, 2, 3]), np.outer(np.arange(4.0), [1.0, 0, 0])),
        (RNG.standard_normal((2, 6)), RNG.standard_normal((3, 6))),
        (RNG.standard_normal((9, 1)), RNG.standard_normal((9, 1))),
        (100 * RNG.standard_normal((30, 4)), 100 * RNG.standard_normal((30, 4))),
    ],
    ids=["zeros", "one key", "rank one", "fewer than d", "d = 1", "logits of thousands"],
)
def test_degenerate_inputs_stay_finite(level, queries, keys):
    estimator = rf.adapt(queries, keys, level=level, num_features=16)
    values = np.arange(2.0 * len(keys)).reshape(-1, 2)
    out = rf.linear_attention(queries, keys, values, estimator.draw(queries.shape[-1], 16, rng=0))
    assert np.all(np.isfinite(out))
    rounding = 64 * np.finfo(float).eps * np.abs(values).max()
    assert np.all((out >= values.min(axis=0) - rounding) & (out <= values.max(axis=0) + rounding))


@pytest.mark.parametrize(("spelling", "level"), [("centre", "center"), ("exponent", "dense")])
def test_other_spellings_of_levels(spelling, level):
    assert rf.adapt(Q, K, level=spelling) == rf.adapt(Q, K, level=level)


def test_mistakes_are_named():
    with pytest.raises(
        ValueError, match="level must be one of 'center', 'balance', 'dense', 'weighted', 'posterior', got"
    ):
        rf.adapt(Q, K, level="best")
    with pytest.raises(ValueError, match=r"level must be one of .*, got \['posterior'\]"):
        rf.adapt(Q, K, level=["posterior"])
    with pytest.raises(ValueError, match="anchor_scale must be 'checked', 'rule' or a positive number, got 'best'"):
        rf.adapt(Q, K, anchor_scale="best")
    with pytest.raises(ValueError, match="no query or no key that takes part"):
        rf.adapt(Q, K, key_mask=np.zeros((3, 60), bool))
    with pytest.raises(ValueError, match="draw with dim=8"):
        rf.adapt(Q, K).draw(7, 16, rng=0)
    with pytest.raises(ValueError, match="cannot be applied twice"):
        rf.CenteredFeatures(base=rf.CenteredFeatures(query_shift=SHIFT, key_shift=SHIFT),
                            query_shift=SHIFT, key_shift=SHIFT).draw(4, 4)  # fmt: skip
    with pytest.raises(TypeError, match="base must be an estimator of the softmax family"):
        rf.CenteredFeatures(base="positive")
    with pytest.raises(ValueError, match="must be between 0 and 1"):
        rf.PosteriorFeatures(anchors=ANCHORS, keys=KEYS, defensive_share=0.0)


def test_earlier_dimensions_are_pooled():
    """Two passages of the same heads are one calibration: the fit is that of their concatenation."""
    for level in ("center", "balance", "dense"):
        pooled = rf.adapt(np.stack([Q, 2 * Q]), np.stack([K, K - 1]), level=level)
        joined = rf.adapt(np.concatenate([Q, 2 * Q], axis=1), np.concatenate([K, K - 1], axis=1), level=level)
        assert pooled.batch_shape == (3,)
        outputs = [rf.linear_attention(Q, K, V, e.draw(8, 64, rng=0)) for e in (pooled, joined)]
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-9)


def test_masked_queries_do_not_count():
    mask = np.arange(60) < 40
    q = Q.copy()
    q[:, 40:] = 1e6
    masked = rf.adapt(q, K, level="dense", query_mask=np.broadcast_to(mask, (3, 60)))
    assert masked == rf.adapt(Q[:, :40], K, level="dense")


@pytest.mark.parametrize("rule", ["rule", 1.0, 2.0])
def test_anchor_scale(rule):
    """The rule is √(1024/num_features) within 1 .. 4; a number is taken as it is."""
    expected = np.clip(np.sqrt(1024 / 256), 1, 4) if rule == "rule" else rule
    scaled, plain = (rf.adapt(Q[0], K[0], num_features=256, anchor_scale=s) for s in (rule, 1.0))
    np.testing.assert_allclose(scaled.base.matrix, expected * plain.base.matrix, rtol=1e-12)
    np.testing.assert_allclose(scaled.base.base.keys, plain.base.base.keys / expected, rtol=1e-12)
