"""rf.register: classes of users in the catalogue and in files, and nothing that was not registered."""

import abc
import math
from dataclasses import dataclass, field

import numpy as np
import pytest

import randfeat as rf


@dataclass(frozen=True)
class LinearKernel(rf.Kernel):
    """The inner product.

    Source: a test.
    """

    def _gram(self, x, y):
        return x @ np.swapaxes(y, -1, -2)

    def _pairwise(self, x, y):
        return (x * y).sum(-1)


@dataclass(frozen=True)
class RandomProjections(rf.Estimator):
    """Inner products with rows: unbiased for `x·y`.

    Source: a test.
    """

    kernel: rf.Kernel = field(default_factory=LinearKernel)
    gain: float = 1.0

    def query_features(self, arrays, x):
        values = self.gain * (x @ np.swapaxes(arrays["rows"], -1, -2)) / math.sqrt(arrays["rows"].shape[-2])
        return rf.Features(values, np.zeros_like(values[..., :1]))


@dataclass(frozen=True)
class OwnRows(rf.Independent):
    """Independent rows under another name.

    Source: a test.
    """


LAWS = [RandomProjections(gain=2.0), LinearKernel(), OwnRows(), rf.PositiveFeatures(coupling=OwnRows())]


def test_registered_classes_are_listed():
    before = {entry.name for entry in rf.catalogue()}
    for cls in (RandomProjections, LinearKernel, OwnRows):
        assert rf.register(cls) is cls
    entries = {entry.name: entry for entry in rf.catalogue()}
    assert entries.keys() - before == {"RandomProjections", "LinearKernel", "OwnRows"}
    entry = entries["RandomProjections"]
    assert (entry.kind, entry.kernel, entry.unbiased, entry.widths) == ("estimator", "LinearKernel", False, "any")
    assert entry.source == entries["LinearKernel"].source == "a test"
    assert entries["OwnRows"].acronyms == ("own-rows",)
    assert rf.PositiveFeatures(coupling="own-rows").coupling == OwnRows()


def test_a_registered_estimator_of_histograms_is_listed(monkeypatch):
    """Its example has a kernel that refuses negative inputs."""

    @dataclass(frozen=True)
    class OfHistograms(rf.SpectralFeatures):
        """Waves of histograms."""

        kernel: rf.Kernel = field(default_factory=rf.AdditiveChi2Kernel)

    from randfeat.selection import entries

    monkeypatch.setattr(entries, "concrete", lambda base: [OfHistograms])
    (entry,) = rf.catalogue("estimator")
    assert (entry.kernel, entry.unbiased, entry.widths) == ("AdditiveChi2Kernel", True, "multiples of 8")


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_registered_classes_are_saved(tmp_path, law):
    """Only after they are registered, and loaded only where they are."""
    path = tmp_path / "law.npz"
    with pytest.raises(TypeError, match=r"register it first, with randfeat.register\(\w+\)"):
        rf.save(path, law)
    for cls in (RandomProjections, LinearKernel, OwnRows):
        rf.register(cls)
    rf.save(path, law)
    again = rf.load(path)
    assert type(again) is type(law)
    assert again == law


def test_maps_of_registered_estimators_are_saved(tmp_path):
    for cls in (RandomProjections, LinearKernel):
        rf.register(cls)
    phi = RandomProjections(gain=2.0).draw(3, 8, rng=0)
    rf.save(tmp_path / "map.npz", phi)
    x = np.linspace(0, 1, 12).reshape(4, 3)
    np.testing.assert_array_equal(rf.load(tmp_path / "map.npz")(x), phi(x))


def test_files_of_unregistered_classes_name_the_remedy(tmp_path):
    from randfeat.storage.registry import _REGISTERED

    rf.register(LinearKernel)
    rf.save(tmp_path / "law.npz", LinearKernel())
    del _REGISTERED["LinearKernel"]  # as in another process
    with pytest.raises(ValueError, match=r"no class 'LinearKernel': .* import the module that registers it"):
        rf.load(tmp_path / "law.npz")


def test_hostile_files_make_registered_classes_only(tmp_path, monkeypatch):
    """A file with the name of a class that is imported, derives from an estimator, and is not registered."""
    from randfeat.storage import registry

    rf.register(LinearKernel)
    with monkeypatch.context() as planted:
        planted.setitem(registry._REGISTERED, "RandomProjections", RandomProjections)
        rf.save(tmp_path / "law.npz", RandomProjections())
    with pytest.raises(ValueError, match="no class 'RandomProjections'"):
        rf.load(tmp_path / "law.npz")


def test_what_registered_classes_refuse_is_one_error(tmp_path):
    """A constructor of a user that fails in any way."""

    @dataclass(frozen=True)
    class Fragile(LinearKernel):
        factor: float = 1.0

        def __post_init__(self):
            {1.0: None}[self.factor]

    rf.register(Fragile)
    fragile = Fragile()
    object.__setattr__(fragile, "factor", 2.0)
    rf.save(tmp_path / "law.npz", fragile)
    with pytest.raises(ValueError, match="holds nothing that this randfeat can make: KeyError"):
        rf.load(tmp_path / "law.npz")


def test_mistakes_are_named():
    class NoKernel:
        pass

    class Thawed(rf.Coupling):
        pass

    @dataclass(frozen=True)
    class Needy(RandomProjections):
        size: int = field(kw_only=True)

    @dataclass(frozen=True)
    class Abstract(rf.Estimator):
        @abc.abstractmethod
        def more(self): ...

    @dataclass(frozen=True)
    class PositiveFeatures(rf.PositiveFeatures):
        pass

    @dataclass(frozen=True)
    class Sobol2(rf.Independent):
        pass

    with pytest.raises(TypeError, match="derives from Estimator, Kernel or Coupling, got <class"):
        rf.register(NoKernel)
    with pytest.raises(TypeError, match=r"Thawed must be a frozen dataclass: write @dataclass\(frozen=True\)"):
        rf.register(Thawed)
    with pytest.raises(TypeError, match=r"Needy.example\(\) must make an instance, .*'size'.* Give the fields default"):
        rf.register(Needy)
    with pytest.raises(TypeError, match=r"Abstract.example\(\) must make an instance"):
        rf.register(Abstract)
    with pytest.raises(ValueError, match=r"there is a class PositiveFeatures in randfeat.estimators.positive"):
        rf.register(PositiveFeatures)
    with pytest.raises(ValueError, match=r"there is a coupling 'sobol': register with another name"):
        rf.register(name="sobol")(Sobol2)
    with pytest.raises(TypeError, match="name is for couplings, but LinearKernel is none"):
        rf.register(name="linear")(LinearKernel)
    assert "sobol" not in [entry.name for entry in rf.catalogue("kernel")]
    assert type(rf.PositiveFeatures(coupling="sobol").coupling) is rf.Sobol


def test_names_of_couplings_and_cells_that_run_again():
    for _ in range(2):

        @rf.register(name="again")
        @dataclass(frozen=True)
        class Repeated(rf.Independent):
            pass

        assert type(rf.PositiveFeatures(coupling="again").coupling) is Repeated


def test_a_registered_class_takes_no_name_of_another_coupling():
    rf.register(OwnRows)
    rf.register(OwnRows)  # as when a cell of a notebook is run again
    with pytest.raises(ValueError, match="there is a coupling 'orthogonal': register with another name"):
        rf.register(name="orthogonal")(OwnRows)
    assert rf.PositiveFeatures(coupling="orthogonal").coupling == rf.Orthogonal()


@pytest.mark.parametrize("name", [3, ""])
def test_names_of_couplings_are_words(name):
    with pytest.raises(TypeError, match="name must be a string that is not empty, got"):
        rf.register(name=name)(OwnRows)


def test_a_class_that_no_file_could_make_is_refused():
    @dataclass(frozen=True)
    class Made(rf.PositiveFeatures):
        def __init__(self, one):
            super().__init__()

        @classmethod
        def example(cls):
            return cls(1)

    with pytest.raises(TypeError, match="Made must be made from its fields alone, but: "):
        rf.register(Made)
