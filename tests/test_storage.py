"""rf.save and rf.load: everything comes back as it was, and nothing that is not ours is read."""

import copy
import json
import os
import pickle

import numpy as np
import pytest

import randfeat as rf
from randfeat.compressed import CompressedState
from randfeat.storage import archive
from tests import cases
from tests.arrays import asarray, dtype_of, library, same_bits, to_numpy
from tests.hostile_files import corpus

LAWS = list(dict.fromkeys([*cases.ESTIMATORS, *cases.OTHERS, *cases.OPEN, *cases.COUPLINGS, *cases.OTHER_COUPLINGS]))
LAWS = [law for law in LAWS if not isinstance(law, type)] + list(cases.KERNELS)
FITTED = [
    rf.PosteriorFeatures(anchors=np.ones((3, 4)), log_masses=np.array([0.0, -np.inf, 0.0]) - np.log(2), keys=np.eye(4)),
    rf.PositiveFeatures() + 2.5 * rf.TrigonometricFeatures(),
    rf.GaussianKernel(2.0) * rf.MaternKernel(),
]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file that nobody waits for: that the disk has it is a test of its own."""
    monkeypatch.setattr(os, "fsync", lambda number: None)
    return tmp_path / "stored.npz"


def test_the_disk_has_a_file_before_it_takes_its_place(tmp_path, monkeypatch):
    seen = []
    for name in ("fsync", "replace"):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, call=function: (seen.append(name), call(*given))[1])
    rf.save(tmp_path / "stored.npz", rf.PositiveFeatures())
    assert seen == ["fsync", "replace", "fsync"]  # of the file, and of the folder with its name


@pytest.mark.parametrize("law", [*LAWS, *FITTED], ids=repr)
def test_laws_come_back_equal(path, law):
    rf.save(path, law)
    again = rf.load(path)
    assert type(again) is type(law)
    assert again == law
    assert repr(again) == repr(law)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_maps_and_states_continue_bit_by_bit(xp, rng, path, dtype):
    """On the library, device and dtype they are loaded for; saved half of the way, the second half is the same."""
    if library(xp) == "jax" and dtype == "float32":
        pytest.skip("what of bfloat16 is kept is float32")
    dtype_of(xp, dtype)
    query, key, value = (asarray(xp, x, dtype) for x in rng.standard_normal((3, 2, 6, 5)))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=query, batch_shape=(2,))
    rf.save(path, phi)
    again = rf.load(path, like=query)
    assert repr(again) == repr(phi)
    assert again.arrays["rows"].dtype == phi.arrays["rows"].dtype
    assert same_bits(again.arrays["rows"], phi.arrays["rows"])
    assert isinstance(rf.load(path).arrays["rows"], np.ndarray)
    options = {"is_causal": library(xp) != "jax", "return_state": True}  # causal takes long where it is not compiled
    _, state = rf.linear_attention(query[:, :4, :], key[:, :4, :], value[:, :4, :], phi, **options)
    rf.save(path, state)
    loaded = rf.load(path, like=query)
    assert loaded.fingerprint == state.fingerprint == phi.fingerprint == again.fingerprint
    rest = query[:, 4:, :], key[:, 4:, :], value[:, 4:, :]
    expected, _ = rf.linear_attention(*rest, phi, initial_state=state, **options)
    actual, _ = rf.linear_attention(*rest, again, initial_state=loaded, **options)
    assert same_bits(actual, expected)


def test_dictionaries_come_back_equal(path):
    """By layers, as a calibration has them, and with parameters beside them."""
    stored = {
        "layers": {0: rf.PositiveFeatures(), 11: FITTED[0]},
        "num_features": 256,
        "options": {"decay": np.array([0.5, 0.9]), "method": "auto", "scale": None},
    }
    for given in (stored, stored["layers"]):
        rf.save(path, given)
        again = rf.load(path)
        assert repr(again) == repr(given)
        assert list(again) == list(given)
    rf.save(path, stored)
    assert rf.load(path)["layers"] == stored["layers"]


@pytest.mark.parametrize(
    "given",
    [{}, {"rng": 0}, {0.5: rf.PositiveFeatures()}, {(1,): rf.PositiveFeatures()}, {True: rf.PositiveFeatures()}],
)
def test_other_dictionaries_are_refused(path, given):
    with pytest.raises(TypeError, match=r"cannot save a dict: .* keys that are strings or integers"):
        rf.save(path, given)
    assert not path.exists()


def test_copies_and_pickles(path):
    """Of everything that can be saved: models that hold maps are copied and sent to other processes."""

    def saved(thing):
        rf.save(path, thing)
        return path.read_bytes()

    for thing in corpus():
        for again in (copy.copy(thing), copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):
            assert type(again) is type(thing)
            if isinstance(thing, rf.FeatureMap | rf.AttentionState):
                assert again.fingerprint == thing.fingerprint
            elif isinstance(thing, rf.FeatureMoments | CompressedState):  # records of arrays are equal to none
                assert saved(again) == saved(thing)
            else:
                assert again == thing


def test_states_of_other_maps_are_refused(path, rng):
    x = rng.standard_normal((6, 5))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0)
    _, state = rf.linear_attention(x, x, x, phi, return_state=True)
    rf.save(path, state)
    others = {
        "rows": rf.PositiveFeatures().draw(5, 8, rng=1),
        "law": rf.FeatureMap(rf.PositiveFeatures(coupling="independent"), 5, 8, phi.arrays),
    }
    for initial in (state, rf.load(path)):
        for other in others.values():
            with pytest.raises(ValueError, match="the state was made with another feature map"):
                rf.linear_attention(x, x, x, other, initial_state=initial)
            _, foreign = rf.linear_attention(x, x, x, other, return_state=True)
            with pytest.raises(ValueError, match="the state was made with another feature map"):
                initial.merge(foreign)
        same = rf.PositiveFeatures().draw(5, 8, rng=0)
        rf.linear_attention(x, x, x, same, initial_state=initial)
        rf.linear_attention(x, x, x, phi.to(np.float32(x)), initial_state=initial)


def test_grouped_heads_know_their_map(rng):
    query, key = rng.standard_normal((4, 6, 5)), rng.standard_normal((2, 6, 5))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, batch_shape=(4,))
    _, state = rf.linear_attention(query, key, key, phi, return_state=True, enable_gqa=True)
    assert state.fingerprint == phi.fingerprint
    rf.linear_attention(query, key, key, phi, initial_state=state, enable_gqa=True)


def test_fingerprints_do_not_look_at_traced_arrays(jax, rng):
    """A map that is itself traced has none; nothing breaks, and the state is not checked."""
    x = jax.numpy.asarray(rng.standard_normal((6, 5)))
    phi = rf.PositiveFeatures().draw(5, 8, rng=0, like=x)

    def twice(rows):
        traced = rf.FeatureMap(phi.estimator, 5, 8, {"rows": rows})
        other = rf.FeatureMap(phi.estimator, 5, 8, {"rows": rows})
        _, state = rf.linear_attention(x, x, x, traced, return_state=True)
        assert traced.fingerprint is None
        return rf.linear_attention(x, x, x, other, initial_state=state)

    assert np.all(np.isfinite(to_numpy(jax.jit(twice)(phi.arrays["rows"]))))


class Own(rf.Independent):
    """A coupling that is not of this library."""


def test_what_cannot_be_stored_is_refused(path):
    for thing in (rf.PositiveFeatures(coupling=Own()), Own()):
        with pytest.raises(TypeError, match=r"cannot save a Own, .* register it first, with randfeat.register\(Own\)"):
            rf.save(path, thing)
    for thing in (object(), {"a": 1}, rf.ActivationKernel().function):
        with pytest.raises(TypeError, match="cannot save a"):
            rf.save(path, thing)
    with pytest.raises(ValueError, match="expected arrays of numbers, got objects in array0"):
        archive.write(str(path), {}, {"array0": np.array([None])})
    assert not path.exists()


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes()) | changes
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def test_what_is_not_ours_is_refused(path):
    rf.save(path, rf.PositiveFeatures())
    rewrite(path, version=2)
    with pytest.raises(ValueError, match=r"has version 2 of the format, .* update randfeat"):
        rf.load(path)
    rewrite(path, version=1, object={"class": "Popen", "fields": {}})
    with pytest.raises(ValueError, match="this randfeat has no class 'Popen'"):
        rf.load(path)
    rewrite(path, version=1, object={"class": "SoftmaxKernel", "fields": {"hardness": 1}})
    with pytest.raises(ValueError, match="SoftmaxKernel has no fields hardness"):
        rf.load(path)
    rewrite(path, format="other")
    with pytest.raises(ValueError, match="has the format 'other'"):
        rf.load(path)
    with open(path, "wb") as file:
        np.savez(file, header=np.array([{"an": "object"}], dtype=object))
    for content in (path.read_bytes(), b"", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"was not written by randfeat.save"):
            rf.load(path)
    with pytest.raises(FileNotFoundError):
        rf.load(path.with_name("missing.npz"))


@pytest.mark.parametrize("special", ["/dev/zero", "pipe"])
def test_no_regular_file_is_refused_at_once(tmp_path, special):
    """A device may have no end, and a pipe makes its reader wait for a writer."""
    path = tmp_path / special
    if special == "pipe":
        os.mkfifo(path)
    with pytest.raises(ValueError, match=r"^'.*' is not a regular file; copy its content to one, and load that\.$"):
        rf.load(path)
    with pytest.raises(IsADirectoryError):
        rf.load(tmp_path)
