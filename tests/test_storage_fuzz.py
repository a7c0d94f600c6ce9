"""rf.load and hostile files: every file is an object that fits together, or one ValueError that names it.

More files than in the suite, and others: `RANDFEAT_FUZZ_FILES=10000 RANDFEAT_FUZZ_SEED=1 pytest -s
tests/test_storage_fuzz.py` (counts are printed).
"""

import json
import os
import time
import tracemalloc
import warnings
import zipfile
from collections import Counter

import numpy as np
import pytest

import randfeat as rf
from randfeat.storage import archive, objects
from randfeat.testing.moments import admissible
from tests.hostile_files import DIM, LEVELS, archived, npy, npy_saying, pick, sources, whole

FILES = int(os.environ.get("RANDFEAT_FUZZ_FILES", "1500"))
SEED = int(os.environ.get("RANDFEAT_FUZZ_SEED", "0"))
MOST_MEMORY = 2**25  # bytes, of which the files of 10⁵ brackets take half


@pytest.fixture(scope="module")
def genuine(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)  # nobody waits for the disk
        return sources(tmp_path_factory.mktemp("genuine"))


def used(phi):
    """Features of a loaded map have its width; values may be refused, as by every map."""
    x = admissible(phi.estimator, np.linspace(-1, 1, 3 * phi.dim).reshape(3, phi.dim))
    with np.errstate(all="ignore"):
        for features in (phi.queries(x), phi.keys(x)):
            plain = features.to_array()
            assert plain.shape == (*phi.batch_shape, 3, phi.num_features)
        assert repr(phi)
        forms = [phi.exponential_form(keys=True), phi.fourier_form()]
    for form in forms:
        assert form is None or form.rows.shape[-2] in (phi.num_features, phi.num_features / 2)


def outcome(path, load=None):
    """What the law says of a file: "loaded" or "refused"; everything else is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # load makes its error of them
        try:
            thing = (load or rf.load)(path)
        except ValueError as error:
            refusal = error
        else:
            refusal = None
            if isinstance(thing, rf.FeatureMap):
                used(thing)
            json.dumps(objects.encode(thing, {}), allow_nan=False)  # what was loaded can be saved
    if refusal is None:
        return "loaded"
    assert type(refusal) is ValueError
    assert repr(str(path)) in str(refusal)
    assert "Warning" not in str(refusal)
    assert len(str(refusal)) < 1000
    return "refused"


@pytest.mark.parametrize("level", LEVELS)
def test_hostile_files(tmp_path, genuine, level):
    path = tmp_path / "hostile.npz"
    counts, slowest = Counter(), (0.0, -1)
    seeds = np.random.SeedSequence([SEED, list(LEVELS).index(level)]).spawn(FILES // len(LEVELS))
    for number, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        path.write_bytes(LEVELS[level](pick(rng, genuine), genuine, rng))
        start = time.perf_counter()
        try:
            counts[outcome(path)] += 1
        except Exception as error:
            raise AssertionError(f"file {number} of {level}, seed {SEED}: {path.read_bytes()[-3000:]!r}") from error
        slowest = max(slowest, (time.perf_counter() - start, number))
    print(f"\n{level}: {dict(counts)}, slowest {slowest[0]:.3f} s (file {slowest[1]})")
    assert counts["refused"] > 0
    assert counts["loaded"] > 0


def test_genuine_files_load(tmp_path, genuine):
    """Put together by the functions that put together the others, which so fail for what they change only."""
    path = tmp_path / "genuine.npz"
    for source in genuine:
        path.write_bytes(whole(source.entries, source.header))
        assert outcome(path) == "loaded"


def careless_load(path):
    """rf.load without its border."""
    with open(path, "rb") as file:
        header, arrays = archive.read(file)
    return objects.decode(header["object"], arrays)


def test_the_law_sees_what_load_lets_through(tmp_path, genuine, monkeypatch):
    """A KeyError of decoding; a message without the file; a warning; a map whose arrays are not its estimator's."""
    path = tmp_path / "hostile.npz"
    source = next(
        s for s in genuine if s.header["object"].get("map", {}).get("estimator", {}).get("class") == "PositiveFeatures"
    )

    def decode_of_keys(value, arrays):
        return arrays[value["no such key"]]

    path.write_bytes(source.content)
    with monkeypatch.context() as planted:
        planted.setattr(objects, "decode", decode_of_keys)
        assert outcome(path) == "refused"  # at the border of load,
        with pytest.raises(KeyError):
            outcome(path, careless_load)  # and where there is none
    path.write_bytes(b"PK")
    with pytest.raises(zipfile.BadZipFile):
        outcome(path, careless_load)
    with monkeypatch.context() as planted:
        planted.setattr(objects.archive, "read", lambda file: warnings.warn("strange", UserWarning, stacklevel=1))
        with pytest.raises(AssertionError, match="Warning"):
            outcome(path)

    def load_without_a_name(path):
        raise ValueError("this is no file of mine")

    with pytest.raises(AssertionError, match="no file of mine"):
        outcome(path, load_without_a_name)
    other = json.loads(json.dumps(source.header).replace('"rows"', '"columns"'))
    path.write_bytes(whole(source.entries, other))
    assert outcome(path) == "refused"
    with monkeypatch.context() as planted:
        planted.setattr(objects, "checked_map", lambda phi: phi)
        with pytest.raises(KeyError, match="rows"):
            outcome(path)


# bombs: what is small in the file and large when it is believed -----------------------------------------------------


def bombs(source):
    """Files of a few kB, a few hundred at most, that say that they hold more than memory does."""
    head = "{{'descr': '<f8', 'fortran_order': False, 'shape': {}, }}"
    header = ("header.npy", npy(np.frombuffer(json.dumps(source.header).encode(), np.uint8)))
    for shape in ("(1000000000000,)", "(50000000, 4)", "(0, 1000000000000)", "(1000000000000, 0, 4)"):
        yield archived([header, ("array0.npy", npy_saying(head.format(shape)))])
    zeros = npy_saying(head.format("(2000000, 4)"), bytes(2**26))
    yield archived([header, ("array0.npy", zeros)], zipfile.ZIP_DEFLATED)
    lying = bytearray(archived([header, *source.entries]))
    at = lying.rfind(b"PK\x01\x02")
    lying[at + 20 : at + 28] = (2**31 - 1).to_bytes(4, "little") * 2  # both sizes of the last entry
    yield bytes(lying)
    for opening, closing in (("[", "]"), ('{"tuple": [', "]}"), ('{"dict": [[0,', "]]}"), ('{"x":', "}")):
        yield whole(source.entries, (opening * 10**5 + "1" + closing * 10**5).encode())
    for dim, width in ((10**12, 8), (4, 10**12), (10**30, 10**30)):
        changed = json.loads(json.dumps(source.header))
        changed["object"]["map"] |= {"dim": dim, "num_features": width}
        yield whole(source.entries, changed)


def test_bombs_take_no_memory(tmp_path, genuine):
    path = tmp_path / "bomb.npz"
    for content in bombs(genuine[0]):
        path.write_bytes(content)
        del content
        tracemalloc.start()
        assert outcome(path) == "refused"
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < MOST_MEMORY


def test_wide_maps_of_small_arrays_are_not_made_to_be_checked(tmp_path):
    """The tensor product of narrow maps is checked without its features, of which one row is 800 GB."""
    parts = (rf.TrigonometricFeatures(),) * 4
    phi = rf.ProductFeatures(parts).draw(DIM, 10**4, rng=0)
    wide = {name: np.tile(array, (32, 1)) for name, array in phi.arrays.items()}
    path = tmp_path / "wide.npz"
    rf.save(path, rf.FeatureMap(phi.estimator, DIM, 320**4, wide))
    tracemalloc.start()
    assert rf.load(path).num_features == 320**4
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < MOST_MEMORY


# saving -----------------------------------------------------------------------------------------------------------


def test_interrupted_saves_leave_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "stored"  # no suffix is added
    rf.save(path, rf.SoftmaxKernel(2.0))

    def torn(file, **arrays):
        file.write(b"PK half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as planted:
        planted.setattr(np, "savez", torn)
        with pytest.raises(KeyboardInterrupt):
            rf.save(path, rf.SoftmaxKernel(3.0))
    with pytest.raises(TypeError, match="cannot save a"):
        rf.save(path, rf.SoftmaxKernel)
    assert rf.load(path) == rf.SoftmaxKernel(2.0)
    path.chmod(0o600)
    assert os.listdir(tmp_path) == ["stored"]
    (tmp_path / "link").symlink_to(path)
    rf.save(tmp_path / "link", rf.SoftmaxKernel(4.0))
    assert rf.load(path) == rf.SoftmaxKernel(4.0)
    assert path.stat().st_mode & 0o777 == 0o600
    for function in (rf.load, lambda path: rf.save(path, rf.SoftmaxKernel())):
        with pytest.raises(OSError, match=str(tmp_path)):
            function(tmp_path)
        with pytest.raises(OSError, match="missing"):
            function(tmp_path / "missing" / "file")
