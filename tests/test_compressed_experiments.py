"""Experiments with compressed attention: baselines are what they say, verdicts follow from kept tables and can fail."""

import dataclasses

import numpy as np
import pytest

import randfeat as rf
from experiments import compressed_stream, error_coverage, error_propagation, language_model, real_heads, stacked
from experiments.command_line import GALLERY
from experiments.compressed_stream.evictions import EVICTIONS, NUM_SINKS
from experiments.error_coverage import output_of
from experiments.heads import FOLDER, load_head
from experiments.real_heads.measure import OPERATORS, held_out_error
from experiments.results import Results
from tests.running import run_in_memory

MODULES = (real_heads, error_propagation, compressed_stream, error_coverage, language_model)
needs_minilm = pytest.mark.skipif(bool(compressed_stream.EXPERIMENT.missing), reason="MiniLM is not installed")


def kept(experiment):
    """The published numbers, and the settings that they were made with."""
    results = Results.read(GALLERY / experiment.name)
    values = {name: tuple(x) if isinstance(x, list) else x for name, x in results.settings.items()}
    return results, dataclasses.replace(experiment.settings, **values)


# baselines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVICTIONS)
def test_evictions_with_room_for_all_keys_are_exact(name):
    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 20, 4))
    exact = rf.softmax_attention(q, k, v, is_causal=True)
    np.testing.assert_allclose(EVICTIONS[name](q, k, v, 63), exact, atol=1e-12)


@pytest.mark.parametrize("name", EVICTIONS)
def test_evictions_read_as_many_keys_as_they_say_and_none_that_is_later(name):
    """With unit vectors for values, outputs are the weights of the keys."""
    q, k = np.random.default_rng(1).standard_normal((2, 3, 60, 4))
    weights = EVICTIONS[name](q, k, np.broadcast_to(np.eye(60), (3, 60, 60)), 12)
    read = weights > 0
    assert not np.any(np.triu(read, 1))
    assert np.max(read.sum(axis=-1)) == 12
    assert np.all(np.diagonal(read, axis1=1, axis2=2))
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    if name == "sinks + window":
        assert np.all(read[:, :, :NUM_SINKS] == np.tri(60, NUM_SINKS, dtype=bool))
    else:  # what was evicted does not come back
        age = np.cumsum(read[:, ::-1], axis=1)[:, ::-1]
        for head in range(3):
            for key in range(60):
                column = read[head, key:, key]
                assert np.all(column[: age[head, key, key]])


@pytest.mark.parametrize("name", EVICTIONS)
def test_evictions_keep_one_set_of_keys_for_the_queries_of_a_group(name):
    """Twice the same query head: the output of one. Two different ones: keys that no single head would have kept."""
    q, k, v = np.random.default_rng(4).standard_normal((3, 2, 60, 4))
    alone = EVICTIONS[name](q, k, v, 12)
    np.testing.assert_allclose(EVICTIONS[name](np.repeat(q, 2, axis=0), k, v, 12), np.repeat(alone, 2, axis=0))
    other = np.stack([q[0], -3 * q[0], q[1], -3 * q[1]])
    grouped = EVICTIONS[name](other, k, np.broadcast_to(np.eye(60), (2, 60, 60)), 12).reshape(2, 2, 60, 60)
    read = np.any(grouped > 0, axis=1)
    assert np.max(read.sum(axis=-1)) == 12
    if name != "sinks + window":
        assert not np.allclose(EVICTIONS[name](other, k, v, 12)[::2], alone)


@pytest.mark.parametrize("name", ["heavy hitters", "SnapKV-like"])
def test_evictions_keep_a_key_that_all_queries_read(name):
    rng = np.random.default_rng(2)
    k = rng.standard_normal((1, 80, 4))
    k[0, 7] = 12
    q = np.abs(rng.standard_normal((1, 80, 4)))
    weights = EVICTIONS[name](q, k, np.eye(80)[None], 12)
    assert np.all(weights[0, 7:, 7] > 0)


def test_held_out_queries_are_not_those_that_a_cache_is_made_for():
    """With as many keys as a cache may have, both are exact; with few, the held-out error is another number."""
    head = load_head("antiberty/trastuzumab_vh/L5H0")
    for method in OPERATORS:
        assert held_out_error(method, 5, head, np.random.default_rng(0)) > 1e-3
    assert held_out_error("cache", 128, head, np.random.default_rng(0)) < 1e-12


def test_operators_of_the_coverage_are_built_by_name():
    head = load_head("antiberty/trastuzumab_vh/L5H0")
    for name in error_coverage.EXPERIMENT.settings.operators:
        assert output_of(name, head, np.random.default_rng(0)).shape == head.out.shape


# kept numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.EXPERIMENT.name)
def test_kept_verdicts_follow_from_kept_tables(module):
    results, settings = kept(module.EXPERIMENT)
    again = list(module.EXPERIMENT.verdicts(results.tables, settings))
    assert [(v.claim, v.holds) for v in again] == [(v.claim, v.holds) for v in results.verdicts]


def scaled(column, factor, **where):
    def change(row):
        return row | {column: row[column] * factor} if all(row[k] == v for k, v in where.items()) else row

    return change


BAD = [
    (real_heads, "operators", scaled("median", 3, method="clustered"), "clustered, C = 21: error"),
    (real_heads, "operators", scaled("median", 3, method="cache, fitted"), "cache, fitted, 32 keys: error"),
    (
        real_heads,
        "operators",
        scaled("held_out", 3, method="cache, fitted"),
        "cache of 32 keys fitted, error on held-out",
    ),
    (real_heads, "operators", scaled("median", 3, method="cache"), "cache of 32 keys without a fit"),
    (real_heads, "operators", scaled("median", 50, method="clustered"), "clustered, C = 11: worse than the average"),
    (error_propagation, "embeddings", scaled("cosine", 0.9, method="clustered"), "clustered, C = 21: the embedding"),
    (error_propagation, "retrieval", scaled("kept", 0.5, method="clustered"), "clustered, C = 21: documents near"),
    (
        compressed_stream,
        "stream",
        scaled("error", 3, method="other passages"),
        "D = w = 64, 192 rows, references of other",
    ),
    (
        compressed_stream,
        "stream",
        scaled("error", 3, method="own past"),
        "D = w = 64, 192 rows, references from its own",
    ),
    (
        compressed_stream,
        "stream",
        scaled("error", 0.2, method="heavy hitters"),
        "D = w = 64, 192 rows, references: own past",
    ),
    (compressed_stream, "leaks", lambda row: row | {"earlier": 1}, "a stream whose later"),
    (compressed_stream, "leaks", lambda row: row | {"later": 0.0}, "a stream whose later"),
    (compressed_stream, "prefix", scaled("error", 3, num_pieces=8), "2048 keys compressed to 64"),
    (compressed_stream, "prefix", scaled("error", 3, fit=True), "2048 keys in a fitted cache of 64"),
    (compressed_stream, "whole", scaled("error", 3, method="clustered"), "clustered, C = 11: error on 4096"),
    (error_coverage, "cases", scaled("coverage", 0.9), "64 rows: the true error is below"),
    (error_coverage, "cases", scaled("coverage", 0.9), "64 rows: the mean over cases"),
    (error_coverage, "cases", scaled("ratio", 1.5), "64 rows: the upper value over"),
    (
        language_model,
        "losses",
        scaled("nats", 0.5, method="exact, context cut"),
        "documents that quote themselves: the",
    ),
    (
        language_model,
        "losses",
        scaled("nats", 0.9, method="sinks + window"),
        "documents that quote themselves, 192 rows: merged keys",
    ),
    (
        language_model,
        "losses",
        scaled("nats", 0.9, method="sinks + window"),
        "stretches of the novel, 192 rows: merged",
    ),
    (language_model, "final", scaled("nats", 1.2, attention="LinearAttention"), "trained on the novel: a model"),
    (language_model, "curves", scaled("loss", 1.2, attention="LinearAttention"), "trained on the novel: the loss"),
    (error_coverage, "accuracies", scaled("true", 30), "clustered attention with accuracy = 0.1"),
]

SOUND = {
    "D = w = 64, 192 rows, references of other": scaled("error", 0.5, method="other passages"),
    "2048 keys in a fitted cache of 64": scaled("error", 0.5, fit=True),
    "trained on the novel: a model": lambda row: row | {"nats": 2 + row["repetition"] / 100},
    "trained on the novel: the loss": lambda row: row | {"loss": 3 - row["step"] / 100 + row["repetition"] / 100},
}
"""Better numbers, for claims that the kept ones do not reach."""


@pytest.mark.parametrize(
    ("module", "table", "change", "claim"), BAD, ids=[f"{m.EXPERIMENT.name}-{i}" for i, (m, *_) in enumerate(BAD)]
)
def test_claims_fail_on_bad_numbers(module, table, change, claim):
    results, settings = kept(module.EXPERIMENT)

    def words(tables):
        return [v.holds for v in module.EXPERIMENT.verdicts(tables, settings) if v.claim.startswith(claim)]

    sound = SOUND.get(claim, lambda row: row)
    good, bad = (results.tables | {table: [f(row) for row in results.tables[table]]} for f in (sound, change))
    assert True in words(good)
    assert False in words(bad)


# with the model ------------------------------------------------------------------------------------------------------


@needs_minilm
def test_stacked_passages_are_those_that_are_stored():
    """Rounded to float16 there; the passage at 85 % is one of both."""
    with np.load(FOLDER / "minilm_passages.npz") as file:
        for head in ("L0H0", "L3H9", "L5H11"):
            made = stacked.of_passage(0.85).arrays
            for array, name in zip(made, "qkv", strict=True):
                expected = file[f"passage3/{head}/{name}"]
                found = array[stacked.HEADS.index(head)]
                atol = np.spacing(np.abs(expected).max()).astype(float)
                np.testing.assert_allclose(found, expected.astype(float), rtol=0, atol=atol)


@needs_minilm
def test_streams_run_and_repeat():
    experiment = compressed_stream.EXPERIMENT
    small = {"length": 96, "whole_length": 128, "num_keys": (8,), "pieces": (8,), "prefixes": (8,), "clusters": (5,)}
    settings = dataclasses.replace(experiment.configure(quick=True), **small, whole_keys=(16,), num_blocks=3)
    first, second = (run_in_memory(experiment, settings) for _ in range(2))
    assert repr(first.tables) == repr(second.tables)
    assert all(first.tables.values())
    assert [verdict.holds for verdict in first.verdicts if "same earlier outputs" in verdict.claim] == [True]
    assert all(figure.axes for figure in experiment.plot(first).values())
    assert all(summary.rows for summary in experiment.summaries(first.tables, settings))
