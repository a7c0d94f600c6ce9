"""Planted defects: each is applied by monkeypatching and must turn its check red; unpatched, the check is green."""

import numpy as np
import pytest

import randfeat as rf
from randfeat.attention import partial
from randfeat.attention.generic import causal, chunks
from randfeat.couplings import base, orthogonal
from randfeat.couplings.base import block_sizes, haar_rows
from randfeat.couplings.laws import RadialPair
from randfeat.features import Features
from randfeat.testing import check_coupling, check_estimator


def orthogonal_positive():
    check_estimator(rf.PositiveFeatures(coupling="orthogonal"), rng=1)


def orthogonal_trigonometric():
    check_estimator(rf.TrigonometricFeatures(coupling="orthogonal"), rng=1)


def orthogonal_rows():
    check_coupling("orthogonal", rng=1)


def causal_attention_ignores_the_future():
    """Multiplying the last key by 100 leaves all earlier outputs bit-equal, and finite."""
    q, k, v = np.random.default_rng(0).standard_normal((3, 16, 8)).astype(np.float32)
    phi = rf.PositiveFeatures().draw(8, 32, rng=0, like=q)
    before = rf.linear_attention(q, k, v, phi, is_causal=True)
    k[-1] *= 100
    after = rf.linear_attention(q, k, v, phi, is_causal=True)
    assert np.all(np.isfinite(after))
    assert np.array_equal(before[:-1], after[:-1])


def qr_without_sign_fix(monkeypatch):
    def raw(num_rows, dim, *, rng, batch_shape=()):
        q, _ = np.linalg.qr(rng.standard_normal((*batch_shape, dim, num_rows)))
        return np.swapaxes(q, -1, -2)

    monkeypatch.setattr(orthogonal, "haar_rows", raw)


def norms_on_the_wrong_axis(monkeypatch):
    def across(self, num_rows, dim, *, rng, batch_shape=()):
        blocks = -(-num_rows // dim)
        directions = haar_rows(dim, dim, rng=rng, batch_shape=(*batch_shape, blocks))
        norms = np.sqrt(rng.chisquare(dim, size=(*batch_shape, blocks, 1, dim)))
        return (directions * norms).reshape(*batch_shape, blocks * dim, dim)[..., :num_rows, :]

    monkeypatch.setattr(rf.Orthogonal, "sample", across)


def one_set_of_norms_for_all_blocks(monkeypatch):
    def shared(dim, size, *, rng):
        norms = np.sqrt(rng.chisquare(dim, size=(*size[:-1], dim, 1)))
        return np.concatenate([norms] * -(-size[-1] // dim), axis=-2)[..., : size[-1], :]

    monkeypatch.setattr(orthogonal, "chi_norms", shared)


def norms_of_the_factorized_matrix(monkeypatch):
    """Lengths taken from the rows of the Gaussian matrix whose QR gave the directions."""

    def dependent(self, num_rows, dim, *, rng, batch_shape=()):
        blocks = -(-num_rows // dim)
        g = rng.standard_normal((*batch_shape, blocks, dim, dim))
        q, r = np.linalg.qr(g)
        q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
        rows = np.linalg.norm(g, axis=-1, keepdims=True) * q
        return rows.reshape(*batch_shape, blocks * dim, dim)[..., :num_rows, :]

    monkeypatch.setattr(rf.Orthogonal, "sample", dependent)


def missing_one_over_root_m(monkeypatch):
    original = rf.PositiveFeatures.query_features

    def unscaled(self, arrays, x):
        features = original(self, arrays, x)
        return Features(features.values, features.log_scale + np.log(arrays["rows"].shape[-2]) / 2)

    monkeypatch.setattr(rf.PositiveFeatures, "query_features", unscaled)


def too_few_pairs(monkeypatch):
    """(J - 1) d (d - 1) + r (r - 1), a formula in circulation, for J full blocks."""

    def count(self, num_rows, dim):
        blocks, rest = block_sizes(num_rows, dim)
        return [((max(blocks, 1) - 1) * dim * (dim - 1) + rest * (rest - 1), RadialPair(dim, 0.0))]

    monkeypatch.setattr(rf.Orthogonal, "pair_laws", count)


def one_maximum_for_the_whole_chunk(monkeypatch):
    """Keys shifted by the largest key of the chunk, future ones included, then the masked product."""

    def leaky(queries, keys, values, square):
        key_weight, top = partial.key_weights(keys)
        query_weight, log_scale = partial.query_weights(queries, top)
        scores = np.tril(query_weight @ np.swapaxes(key_weight, -1, -2))
        return partial.PartialOutput(scores @ values, scores.sum(axis=-1, keepdims=True), log_scale)

    monkeypatch.setattr("randfeat.attention.generic.chunks.causal_partial", leaky)


MUTANTS = [
    (qr_without_sign_fix, orthogonal_positive),
    (qr_without_sign_fix, orthogonal_rows),
    (norms_on_the_wrong_axis, orthogonal_positive),
    (norms_on_the_wrong_axis, orthogonal_rows),
    (one_set_of_norms_for_all_blocks, orthogonal_rows),
    (norms_of_the_factorized_matrix, orthogonal_rows),
    (missing_one_over_root_m, orthogonal_positive),
    (too_few_pairs, orthogonal_trigonometric),
    (too_few_pairs, orthogonal_rows),
    (one_maximum_for_the_whole_chunk, causal_attention_ignores_the_future),
]


@pytest.mark.parametrize("check", sorted({check for _, check in MUTANTS}, key=lambda f: f.__name__))
def test_checks_are_green_without_a_mutant(check):
    check()


@pytest.mark.parametrize(("mutant", "check"), MUTANTS)
def test_mutants_turn_the_suite_red(mutant, check, monkeypatch):
    mutant(monkeypatch)
    with pytest.raises(AssertionError), np.errstate(all="ignore"):
        check()


def test_mutants_patch_what_is_used():
    """The seams that the mutants replace are the ones that the library calls."""
    assert orthogonal.haar_rows is base.haar_rows
    assert orthogonal.chi_norms is base.chi_norms
    assert chunks.causal_partial is causal.causal_partial
