"""Forecasts of attention errors: bounded by the values, and right on heads of trained models."""

import copy
import importlib.util
import pickle

import numpy as np
import pytest

import randfeat as rf
from experiments.heads import head_names, load_head
from randfeat.selection.forecast import MEASURED, POOR, USEFUL

Q, K, V = np.random.default_rng(0).standard_normal((3, 30, 6))
INDEPENDENT = rf.PositiveFeatures(coupling="independent")
NUM_QUERIES, FRESH = 16, 60


def rows_of(length, num_queries=NUM_QUERIES, seed=0):
    """The sampled queries, as documented: a random subset drawn with this seed."""
    if length <= num_queries:
        return np.arange(length)
    return np.sort(np.random.default_rng(seed).choice(length, num_queries, replace=False))


def fresh_errors(estimator, query, key, value, width, *, scale=None, is_causal=False):
    """Errors of linear attention itself, of fresh maps, pooled over the sampled queries: sorted, (FRESH,)."""
    rows = rows_of(len(query))
    options = {"scale": scale, "key_ends": np.minimum(rows + 1, len(key))} if is_causal else {"scale": scale}
    exact = rf.softmax_attention(query, key, value, scale=scale, is_causal=is_causal)[rows]
    phi = estimator.draw(query.shape[-1], width, rng=7, batch_shape=(FRESH,))
    error = rf.linear_attention(query[rows], key, value, phi, **options) - exact
    return np.sort(np.linalg.norm(error, axis=(-2, -1)) / np.linalg.norm(exact))


def check_pilot(forecast, errors):
    """The median of 5 pilot draws lies within 60 fresh ones, but for a probability of 2 C(62,2)/C(65,5) = 0.0005.

    Of 30 heads together, 1.4 %. A forecast by the delta method, or of another scale, lies far outside.
    """
    assert forecast.verdict == MEASURED
    assert errors[0] <= forecast <= errors[-1]
    assert forecast <= forecast.largest_error


@pytest.mark.parametrize("name", head_names())
def test_right_on_stored_heads(name):
    """Plain features, where the delta method is off by factors up to infinity; and gentle logits, where it holds."""
    head = load_head(name)
    inputs, options = (head.query, head.key, head.value), {"is_causal": head.is_causal}
    forecast = rf.predict_attention_error(rf.PositiveFeatures(), *inputs, 64, num_queries=NUM_QUERIES, **options)
    check_pilot(forecast, fresh_errors(rf.PositiveFeatures(), *inputs, 64, **options))
    assert forecast.leading_order > 10
    if len(head.key) > 320:  # these take seconds
        return
    size = np.mean(np.sum(head.query**2, axis=-1)) ** 0.5 * np.mean(np.sum(head.key**2, axis=-1)) ** 0.5
    options["scale"] = 0.15 / size  # |x| |y| = 0.15
    forecast = rf.predict_attention_error(INDEPENDENT, *inputs, 1024, num_queries=NUM_QUERIES, **options)
    errors = fresh_errors(INDEPENDENT, *inputs, 1024, **options)
    assert forecast.verdict in (USEFUL, POOR)
    assert 0.8 < forecast / np.sqrt(np.mean(errors**2)) < 1.25
    assert (np.median(errors) <= forecast.average_error) == (forecast.verdict == USEFUL)


@pytest.fixture(scope="module")
def character_model():
    """Queries, keys and values (heads, L, d) of each layer of a causal transformer that has learned letters."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    import torch

    from experiments.texts import novel
    from experiments.transformer import Shape, exact, make_model, one_thread, take_step

    text = novel()[:50_000]
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    ids = np.array([letters[letter] for letter in text])
    rng, layers = np.random.default_rng(0), []
    model = make_model(Shape(len(letters), 48, len(letters), width=64, heads=4), rng)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def kept(layer, *inputs):
        layers.append([x[0].double().numpy() for x in inputs])
        return exact(is_causal=True)(layer, *inputs)

    with one_thread():
        for _ in range(150):
            batch = torch.from_numpy(ids[rng.integers(len(ids) - 49, size=(8, 1)) + np.arange(49)])
            logits = model(batch[:, :-1], exact(is_causal=True))
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            take_step(model, optimizer, loss)
        with torch.no_grad():
            model(torch.from_numpy(ids[None, :48]), kept)
    assert loss < 2.6  # 3.0 for single letters, 4.3 for equal probabilities
    return layers


def test_right_on_a_small_trained_model(character_model):
    """Features beat averaging on heads where the delta method says thousands."""
    useful, leading = [], []
    for query, key, value in character_model:
        forecast = rf.predict_attention_error(
            rf.PositiveFeatures(), query, key, value, 256, is_causal=True, num_queries=NUM_QUERIES
        )
        for one, *inputs in zip(forecast, query, key, value, strict=True):
            errors = fresh_errors(rf.PositiveFeatures(), *inputs, 256, is_causal=True)
            check_pilot(one, errors)
            useful.append(one.beats_average)
            leading.append(float(one.leading_order))
            if errors[-1] < one.average_error or errors[0] > one.average_error:
                assert one.beats_average == (errors[-1] < one.average_error)
    assert np.median(leading) > 100
    assert np.mean(useful) > 0.5


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"key_mask": np.arange(30) % 3 > 0}], ids=["full", "causal", "masked"]
)
@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 10.0])
def test_never_above_the_range_of_the_values(factor, options):
    """`largest_error` by its definition; no draw and no forecast is above it, and a single key at a time reaches it."""
    value = V + 100 * np.eye(6)[0]  # a range that the norm of the values says nothing about
    exact = rf.softmax_attention(factor * Q, factor * K, value, **options)
    worst = np.zeros(30)
    for i in range(30):
        seen = options.get("key_mask", np.ones(30, bool)) & (not options.get("is_causal") or np.arange(30) <= i)
        worst[i] = max((np.sum((v - exact[i]) ** 2) for v in value[seen]), default=0.0)
    for width in (2, 256):
        forecast = rf.predict_attention_error(rf.PositiveFeatures(), factor * Q, factor * K, value, width, **options)
        assert forecast.largest_error == pytest.approx(np.sqrt(worst.sum() / np.sum(exact**2)), rel=1e-12)
        assert forecast <= forecast.largest_error
    signed = rf.predict_attention_error(rf.TrigonometricFeatures(), Q, K, value, 8, **options)
    assert signed.largest_error == np.inf


def test_computes_like_the_array_of_errors():
    heads = rf.predict_attention_error(INDEPENDENT, np.stack([Q / 4, 16 * Q]), K / 4, V, 256)
    errors = heads.error
    assert list(heads.verdict) == [USEFUL, MEASURED]
    assert list(heads.is_measured) == [False, True]
    assert type(errors) is np.ndarray
    for mine, plain in (
        (heads**2, errors**2), (1 / heads, 1 / errors), (np.ones(2) - heads, 1 - errors),
        (np.sqrt(heads), np.sqrt(errors)),
        (heads.mean(), errors.mean()), (heads.round(2), errors.round(2)), (np.asarray(heads), errors),
        (heads > 0.3, errors > 0.3), (heads == errors, [True, True]), (np.max(heads), errors.max()),
    ):  # fmt: skip
        np.testing.assert_array_equal(mine, plain)
    single = rf.predict_attention_error(INDEPENDENT, Q / 4, K / 4, V, 256)
    assert single == float(single)
    assert float(single) == pytest.approx(float(heads[0]), rel=1e-12, abs=0)
    assert single.verdict == "useful"
    assert (len(heads), heads.shape, single.shape) == (2, (2,), ())
    assert f"{single:.3f}" == f"{float(single):.3f}"
    assert [str(one) for one in heads] == str(heads).splitlines() == f"{heads}".splitlines()
    for again in (copy.deepcopy(heads), pickle.loads(pickle.dumps(heads))):
        np.testing.assert_array_equal(again, heads)
        np.testing.assert_array_equal(again.verdict, heads.verdict)
    with pytest.raises(AttributeError, match="no_such"):
        _ = heads.no_such


def test_an_array_of_a_kind_is_a_copy_where_asked():
    forecast = rf.predict_attention_error(INDEPENDENT, np.stack([Q, Q]), K, V, 64)
    assert np.array(forecast, dtype=np.float32).dtype == np.float32
    np.array(forecast)[:] = 7
    assert np.all(forecast.error < 7)


def test_poor_where_averaging_is_better():
    """Nearly flat attention: the closed form holds, and the average of the values is closer."""
    flat = rf.predict_attention_error(INDEPENDENT, Q / 30, K / 4, V, 32)
    assert flat.verdict == POOR
    assert flat.error == flat.leading_order > flat.average_error
    assert not flat.beats_average


def test_the_verdict_on_dependent_rows_is_that_of_a_pilot_where_it_matters():
    """Orthogonal sine-cosine pairs err less than half as much as independent ones, for small inputs.

    At 0.8 of the error of independent rows the average of the values beats these, and not orthogonal ones.
    """
    query, key = Q / 8, K / 8
    verdicts = {}
    for coupling in ("independent", "orthogonal"):
        estimator = rf.TrigonometricFeatures(coupling=coupling)
        forecast = rf.predict_attention_error(estimator, query, key, V, 12)
        errors = fresh_errors(estimator, query, key, V, 12)
        verdicts[coupling] = forecast.verdict
        assert (np.median(errors) <= forecast.average_error) == (forecast.verdict == USEFUL), coupling
    assert verdicts == {"independent": POOR, "orthogonal": USEFUL}


@pytest.mark.parametrize(
    "estimator",
    [
        rf.TrigonometricFeatures(coupling="antithetic"),  # w and -w have the same cosine: twice the variance
        rf.PositiveFeatures(coupling=rf.Orthogonal(norms="constant")),  # a bias
        rf.PositiveFeatures(coupling="sobol"),  # no closed form
        rf.adapt(Q / 4, K / 4, num_features=64),  # no joint moment
    ],
    ids=["antithetic", "constant norms", "sobol", "posterior"],
)
def test_rows_that_closed_forms_do_not_describe_are_measured(estimator):
    forecast = rf.predict_attention_error(estimator, Q / 4, K / 4, V, 64, num_queries=NUM_QUERIES)
    check_pilot(forecast, fresh_errors(estimator, Q / 4, K / 4, V, 64))


def test_estimators_fitted_to_several_heads():
    """Each head is measured with its own parameters, as `linear_attention` uses them."""
    query, key = np.stack([Q, 2 * Q + 1]), np.stack([2 * K - 1, K])
    both = rf.adapt(query, key, level="balance", num_features=64)
    forecast = rf.predict_attention_error(both, query, key, V, 64, num_queries=NUM_QUERIES)
    assert forecast.shape == (2,)
    rows = rows_of(30)
    exact = rf.softmax_attention(query, key, np.stack([V, V]))[:, rows]
    generator = np.random.default_rng(0)
    generator.choice(30, NUM_QUERIES, replace=False)
    errors = []
    for _ in range(5):
        out = rf.linear_attention(query[:, rows], key, np.stack([V, V]), both.draw(6, 64, rng=generator))
        errors.append(np.linalg.norm(out - exact, axis=(-2, -1)) / np.linalg.norm(exact, axis=(-2, -1)))
    np.testing.assert_allclose(forecast, np.median(errors, axis=0), rtol=1e-9)


def test_pilots_of_estimates_that_underflow():
    """Logits of thousands: estimates are below the smallest number times the kernel, and outputs are as ever."""
    query, key = 60 * Q, 60 * K
    forecast = rf.predict_attention_error(rf.PositiveFeatures(), query, key, V, 64, num_queries=NUM_QUERIES)
    assert forecast.leading_order == np.inf
    check_pilot(forecast, fresh_errors(rf.PositiveFeatures(), query, key, V, 64))
    for is_causal in (False, True):
        ranking = rf.recommend(query, key, V, estimators=[rf.PositiveFeatures()], num_features=64, is_causal=is_causal)
        assert np.all(ranking[0].errors <= ranking.largest_error)
        assert ranking.verdict == ("useful" if ranking[0].error < ranking.average_error else "poor")


@pytest.mark.parametrize(
    ("cls", "growth", "sign"),
    [
        (rf.PositiveFeatures, np.exp, 1),
        (rf.HyperbolicFeatures, np.cosh, 1),
        (rf.TrigonometricFeatures, np.cosh, -1),
    ],
)
def test_the_width_from_which_closed_forms_are_believed(cls, growth, sign):
    """The least number of rows with `max_i Σ_jk p_ij p_ik (G_jk - 1)/m <= 0.05`, by the definition."""
    query, key = Q / 3, K / 3
    x, y = query / 6**0.25, key / 6**0.25
    spreads = []
    for i in range(30):
        p = np.exp(x[i] @ y.T)
        p, z = p / p.sum(), x[i] + sign * y
        spreads.append(p @ (growth(z @ z.T) - 1) @ p)
    rows = int(np.ceil(max(spreads) / 0.05))
    assert rows > 2
    estimator = cls(coupling="independent")
    for number, believed in ((rows - 1, False), (rows, True)):
        width = estimator.num_features(number)
        forecast = rf.predict_attention_error(estimator, query, key, V, width)
        assert (forecast.verdict != MEASURED) == believed


@pytest.mark.parametrize("wild", [0, 3, 29])
def test_one_query_whose_denominator_varies_is_enough(wild):
    """The closed form is believed for all sampled queries, or for none."""
    query = Q / 10
    query[wild] *= 60
    calm, whole = (rf.predict_attention_error(INDEPENDENT, q, K / 4, V, 256) for q in (Q / 10, query))
    assert calm.verdict in (USEFUL, POOR)
    assert whole.verdict == MEASURED


def test_a_moment_that_is_not_a_number_is_not_believed():
    class Spoilt(rf.PositiveFeatures):
        def log_joint_moment(self, x, y):
            return super().log_joint_moment(x, y) + (np.nan if x[0] > 0 else 0.0)

    forecast = rf.predict_attention_error(Spoilt(coupling="independent"), Q / 4, K / 4, V, 256)
    assert forecast.verdict == MEASURED
    assert 0 < forecast < 1


def test_outputs_of_zero_and_queries_without_keys():
    """No error is 0 of any size; a query without keys has the output zero, without an error."""
    assert rf.predict_attention_error(INDEPENDENT, Q, K, 0 * V, 64) == 0
    nothing = rf.predict_attention_error(INDEPENDENT, Q, K, V, 64, key_mask=np.zeros(30, bool))
    assert (float(nothing), nothing.verdict) == (0.0, USEFUL)
    first = np.arange(30) >= 2  # under causality the first two queries see nothing
    late = rf.predict_attention_error(INDEPENDENT, Q / 4, K / 4, V, 64, key_mask=first, is_causal=True)
    rest = rf.predict_attention_error(INDEPENDENT, Q[2:] / 4, K[2:] / 4, V[2:], 64, is_causal=True, num_queries=30)
    assert late == pytest.approx(rest, rel=1e-12)
