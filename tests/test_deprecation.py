"""Old words work for a stated time, warn at the line of the user, and are gone when the time is over."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import randfeat as rf
from randfeat._hints import Deprecation, renamed_keywords
from randfeat._hints.deprecation import version
from randfeat._hints.words import MOVED

X = np.random.default_rng(0).standard_normal((2, 6, 3)) / 4
PACKAGE = Path(rf.__file__).parent
MOVED_NAMES = [(home, name) for (home, *_), names in MOVED.items() for name in names.split()]
FITTED = [cls for cls in map(rf.estimators.__dict__.get, rf.estimators.__all__) if hasattr(cls, "fit")]


def here(message, line):
    """The warning's file and line are those of the call."""
    return (message.filename, message.lineno) == (__file__, line)


@pytest.mark.parametrize(("home", "name"), MOVED_NAMES)
def test_names_that_moved(home, name):
    message = f"^rf.{name} is deprecated since randfeat 0.2 and will be gone in 0.4; write rf.{home}.{name}.$"
    with pytest.warns(DeprecationWarning, match=message):
        thing = getattr(rf, name)
    assert thing is getattr(getattr(rf, home), name)
    assert name not in rf.__all__
    assert name not in dir(rf)


def test_moved_names_warn_where_they_are_imported():
    with pytest.warns(
        DeprecationWarning, match=r"rf\.concatenate is deprecated .* write rf\.features\.concatenate\.$"
    ) as caught:
        from randfeat import concatenate  # noqa: F401
    assert all(here(message, inspect.currentframe().f_lineno - 1) for message in caught)


@pytest.mark.parametrize("cls", FITTED, ids=lambda cls: cls.__name__)
def test_fits_take_their_old_keywords(cls):
    query, key = X
    with pytest.warns(DeprecationWarning, match=rf"(queries|keys) of {cls.__name__}\.fit is deprecated") as caught:
        old = cls.fit(queries=query, keys=key)
    assert all(here(message, inspect.currentframe().f_lineno - 1) for message in caught)
    assert sorted(str(message.message).partition(" ")[0] for message in caught) == ["keys", "queries"]
    assert repr(old) == repr(cls.fit(query, key))
    assert list(inspect.signature(cls.fit).parameters)[:2] == ["query", "key"]
    with pytest.raises(TypeError, match=r"got keys, the old name of key, beside it; write one\."):
        cls.fit(query, key=key, keys=key)


def test_a_script_sees_the_warning(tmp_path):
    """Python shows it by default where the old word is in the program that is run, with its line."""
    script = tmp_path / "program.py"
    script.write_text("import randfeat as rf\nrf.SoftmaxFamily\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(PACKAGE.parent)}
    )
    assert f"{script}:2: DeprecationWarning: rf.SoftmaxFamily is deprecated since randfeat 0.2" in done.stderr


def test_values_and_functions_warn_by_their_own_deprecation():
    old = Deprecation('level="exponent"', 'level="dense"', since="0.2", gone="1.0")
    with pytest.warns(DeprecationWarning, match=r'gone in 1\.0; write level="dense"\.$') as caught:
        old.warn()
    assert here(caught[0], inspect.currentframe().f_lineno - 1)


@pytest.mark.parametrize("gone", ["1.2", "1.3", "1.3.5", "1.1", "0.9"])
def test_no_period_is_shorter_than_two_minor_releases(gone):
    with pytest.raises(ValueError, match="must work in at least 2 minor releases"):
        renamed_keywords("1.2.0", gone, old="new")(lambda new: new)


def stated_in(source):
    """`(since, gone)` of what a module declares as deprecated, where both are written out."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") not in ("Deprecation", "renamed_keywords"):
            continue
        named = {word.arg: word.value for word in call.keywords}
        since, gone = (named["since"], named["gone"]) if "gone" in named else call.args[-2:]
        if isinstance(gone, ast.Constant):
            yield since.value, gone.value


def outlived(declared, release):
    """The periods that are over in a release, or not yet begun."""
    return [(since, gone) for since, gone in declared if not version(since) <= version(release) < version(gone)]


def declarations():
    found = [(since, gone) for _, since, gone in MOVED]
    for path in PACKAGE.rglob("*.py"):
        found += stated_in(path.read_text(encoding="utf-8"))
    return found


def test_no_old_word_outlives_its_period():
    """In the release that a period names, the old word goes: this test then fails, and says which."""
    declared = declarations()
    assert len(declared) == len(MOVED) + len(FITTED)
    assert outlived(declared, rf.__version__) == []
    assert outlived(declared, "0.4.0") == declared
    assert list(stated_in('Deprecation("a", "b", since="0.2", gone="0.4")')) == [("0.2", "0.4")]
