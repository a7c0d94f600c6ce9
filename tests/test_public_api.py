"""The public names: listed, sorted, documented; and nothing optional is imported."""

import ast
import functools
import importlib
import inspect
import itertools
import os
import pkgutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

import randfeat as rf

MODULES = [
    module.name for module in pkgutil.walk_packages(rf.__path__, "randfeat.") if ".integrations" not in module.name
]

OPTIONAL = [
    "torch", "jax", "jaxlib", "cupy", "cupyx", "dask", "array_api_strict", "array_api_compat.torch",
    "array_api_compat.cupy", "array_api_compat.dask", "matplotlib", "rich", "sklearn", "pandas", "transformers",
    "scipy.stats", "scipy.linalg", "scipy.optimize", "scipy.special", "scipy.sparse", "mpmath", "hypothesis", "pytest",
]  # fmt: skip


def public(module):
    return [(name, getattr(module, name)) for name in module.__all__]


def is_ours(thing):
    return getattr(thing, "__module__", "").startswith("randfeat")


def is_in_its_module(cls):
    """Whether a class stands in its module; those of examples in docstrings do not."""
    return getattr(importlib.import_module(cls.__module__), cls.__name__, None) is cls


MOST_NAMES = 100
HOMES = (rf, rf.kernels, rf.estimators, rf.couplings, rf.features, rf.attention, rf.regression, rf.selection)
NAMES = {getattr(home, name): f"{home.__name__}.{name}" for home in HOMES for name in home.__all__}
PUBLIC = {name: thing for thing, name in NAMES.items() if not inspect.ismodule(thing)}


def test_names_are_complete():
    assert len(set(rf.__all__)) == len(rf.__all__) <= MOST_NAMES
    assert rf.__all__ == sorted(rf.__all__)
    bound = {name for name, thing in vars(rf).items() if not name.startswith("_") and is_ours(thing)}
    assert bound - set(rf.__all__) == set(), "imported into the package, but not public"
    for name in rf.__all__:
        assert hasattr(rf, name)
    namespace = {}
    exec("from randfeat import *", namespace)
    assert set(rf.__all__) <= set(namespace)


def problems_of(module):
    """What is wrong with the docstring of a module, or with its `__all__`."""
    title = (module.__doc__ or "").split("\n\n")[0].rstrip()
    names = getattr(module, "__all__", [])
    if not title or title[-1] not in ".:`":
        yield f"{module.__name__} has no docstring, or one whose first sentence has no end"
    if names != sorted(names):
        yield f"{module.__name__}.__all__ is not sorted"
    yield from (f"{module.__name__}.{name} does not exist" for name in names if not hasattr(module, name))


def test_modules_list_what_they_offer():
    """Every `__all__` is sorted and true, and every module says in its docstring what it is."""
    assert [problem for name in MODULES for problem in problems_of(importlib.import_module(name))] == []
    planted = types.ModuleType("planted", "No end")
    planted.__all__ = ["b", "a"]
    assert len(list(problems_of(planted))) == 4


def test_every_estimator_coupling_and_kernel_is_public():
    """What a new file offers must be listed: a concrete subclass that users cannot reach is a mistake."""
    for name in MODULES:
        importlib.import_module(name)

    def leaves(cls):
        for child in cls.__subclasses__():
            yield child
            yield from leaves(child)

    for base in (rf.Estimator, rf.Coupling, rf.Kernel):
        ours = [c for c in leaves(base) if is_ours(c) and is_in_its_module(c)]
        found = [c for c in ours if not inspect.isabstract(c) and not c.__name__.startswith("_")]
        assert len(found) >= 2
        package = importlib.import_module(f"randfeat.{base.__name__.lower()}s")
        for cls in found:
            assert cls.__name__ in package.__all__, f"{cls.__module__}.{cls.__name__} is not public"
            if base is not rf.Kernel:  # operators make kernels that nobody names
                assert cls.__name__ in rf.__all__, f"{cls.__name__} is not at the top level"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    """A docstring with content of its own: for functions and classes, and for all that is public in a class.

    What overrides something may leave its docstring to it.
    """
    thing = PUBLIC[name]
    documented(thing, thing.__doc__, name)
    if inspect.isclass(thing):
        fields = getattr(thing, "__dataclass_fields__", {})  # in the docstring of the class
        for attribute in vars(thing):
            if not attribute.startswith("_") and attribute not in fields:
                texts = [own_docstring(owner, attribute) for owner in thing.__mro__ if attribute in vars(owner)]
                documented(vars(thing)[attribute], next(filter(None, texts), None), f"{name}.{attribute}")


METHODS = (types.FunctionType, classmethod, staticmethod, property, functools.cached_property)


def own_docstring(cls, attribute):
    """That of a method or property; of a class variable, the string that follows it."""
    if isinstance(vars(cls)[attribute], METHODS):
        return vars(cls)[attribute].__doc__
    (page,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    for statement, after in itertools.pairwise(page.body):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if attribute in [getattr(target, "id", None) for target in targets]:
            return after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
    return None


class Described:
    """Docstrings where the test above looks for them, and none where it must find none."""

    width: int = 1
    """Features of one row."""
    height = 2
    depth: bool = True

    @property
    def shape(self):
        """(width, height)."""
        return self.width, self.height

    @classmethod
    def of(cls):
        return cls()


class Narrow(Described):
    width = 0
    shape = (0, 2)


def test_docstrings_are_found():
    found = {name: own_docstring(Described, name) for name in ("width", "height", "depth", "shape", "of")}
    assert found == {
        "width": "Features of one row.",
        "height": None,
        "depth": None,
        "shape": "(width, height).",
        "of": None,
    }
    assert own_docstring(Narrow, "width") is own_docstring(Narrow, "shape") is None
    for name, text in found.items():
        if text is None:
            with pytest.raises(AssertionError, match=f"{name} has no docstring"):
                documented(vars(Described)[name], text, name)


def documented(thing, text, name):
    assert text, f"{name} has no docstring"
    generated = inspect.isclass(thing) and text.startswith(f"{thing.__name__}(")  # what dataclasses write
    assert not generated, f"{name} has no docstring of its own"
    assert len(text.split()) >= (8 if inspect.isclass(thing) else 1), f"{name}: {text!r} says too little"
    assert text.split("\n\n")[0].rstrip()[-1] in ".:`", f"{name}: the first sentence has no end: {text!r}"


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if callable(thing)])
def test_public_signatures_have_types(name):
    """Parameters of public functions and constructors are annotated."""
    thing = PUBLIC[name]
    if issubclass_safe(thing, Exception):
        assert issubclass(thing, ValueError | TypeError | UserWarning)
        return
    for parameter in inspect.signature(thing).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, f"{name}: {parameter}"


def issubclass_safe(thing, cls):
    return inspect.isclass(thing) and issubclass(thing, cls)


def run_python(code):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_imports_nothing_optional():
    """NumPy and array-api-compat's core; the rest only when it is used."""
    loaded = run_python("import randfeat, sys; print(*sys.modules)")
    assert "randfeat.attention.linear" in loaded
    assert "numpy" in loaded
    assert sorted(set(OPTIONAL) & set(loaded)) == []
    lazy = {f"randfeat.{name}" for name in ("bounds", "montecarlo", "plotting", "testing", "integrations", "cli")}
    assert sorted(lazy & set(loaded)) == []


def test_modules_are_imported_when_they_are_used():
    """By their names alone, and once; `dir` knows them before."""
    code = (
        "import randfeat as rf, sys; names = ('bounds', 'montecarlo', 'plotting', 'testing', 'integrations'); "
        "assert set(names) <= set(dir(rf)); assert not any(f'randfeat.{name}' in sys.modules for name in names); "
        "assert 'sklearn' in dir(rf.integrations); assert not hasattr(rf, 'plot_everything'); "
        "rf.bounds.chernoff_bound, rf.montecarlo.compare, rf.testing.check_estimator; "
        "assert rf.bounds is sys.modules['randfeat.bounds']; assert rf.__getattr__('bounds') is rf.bounds"
    )
    run_python(code)


def test_integrations_are_reached_from_the_package():
    pytest.importorskip("sklearn")
    code = "import randfeat as rf; print(rf.integrations.sklearn.RandomFeatureRidge.__name__)"
    assert run_python(code) == ["RandomFeatureRidge"]


def test_using_numpy_imports_no_other_array_library():
    """Attention, closed forms and Monte Carlo on NumPy arrays need SciPy's special functions at most."""
    code = (
        "import numpy as np, randfeat as rf, sys; x = np.ones((4, 3)); e = rf.PositiveFeatures(); "
        "phi = e.draw(3, 4, rng=0); rf.linear_attention(x, x, x, phi, is_causal=True); rf.softmax_attention(x, x, x); "
        "e.variance(x, -x, num_features=4); print(*sys.modules)"
    )
    forbidden = {"torch", "jax", "cupy", "dask", "matplotlib", "sklearn", "scipy.stats", "scipy.optimize", "rich"}
    assert sorted(forbidden & set(run_python(code))) == []


def test_version():
    parts = rf.__version__.split(".")
    assert len(parts) == 3
    assert all(part.isdigit() for part in parts[:2])


def test_one_version_everywhere():
    root = Path(__file__).parent.parent
    for name, line in (
        ("pyproject.toml", f'version = "{rf.__version__}"'),
        ("CITATION.cff", f"version: {rf.__version__}"),
    ):
        assert line in (root / name).read_text(encoding="utf-8").splitlines(), name
    assert f"## {rf.__version__}" in (root / "docs" / "changelog.md").read_text(encoding="utf-8")
