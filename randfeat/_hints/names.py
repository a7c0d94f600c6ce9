"""Names that a package does not have: modules that are imported when they are used, and hints."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from randfeat._hints.deprecation import Deprecation
from randfeat._hints.similar import nearest, squeezed
from randfeat._hints.words import HOMES, MOVED, NAMES, OF_LIBRARIES


def lazy_modules(package: str, modules: Sequence[str]) -> tuple[Callable[[str], Any], Callable[[], Sequence[str]]]:
    """`__getattr__` and `__dir__` of a package that imports these modules when they are first used.

    Names that have moved to another package are found with a warning. Any other name is an AttributeError with a hint.
    """
    moved = moved_names() if package == "randfeat" else {}

    def __getattr__(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name in moved:
            home, deprecation = moved[name]
            deprecation.warn()
            return getattr(importlib.import_module(home), name)
        message = f"module {package!r} has no attribute {name!r}"
        if name.startswith("_"):  # asked by tools, not by people
            raise AttributeError(message)
        hint = name_hint(name, sys.modules[package], modules)
        raise AttributeError(f"{message}; {hint}" if hint else message)

    def __dir__() -> Sequence[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return __getattr__, __dir__


def moved_names() -> dict[str, tuple[str, Deprecation]]:
    """The package that has a name now, and the warning, by the names that were at the top level."""
    return {
        name: (f"randfeat.{home}", Deprecation(f"rf.{name}", f"rf.{home}.{name}", since, gone))
        for (home, since, gone), names in MOVED.items()
        for name in names.split()
    }


def name_hint(name: str, package: Any, modules: Sequence[str]) -> str | None:
    """The name here of what other libraries, packages of this one, or papers call `name`, or a similar name."""
    plain = squeezed(name)
    if package.__name__ == "randfeat":
        for other in (name, *NAMES):
            if other in NAMES and squeezed(other) == plain:
                return NAMES[other]
        for home in HOMES:
            if name in getattr(package, home).__all__:
                return f"it is rf.{home}.{name}"
        for library, names in OF_LIBRARIES.items():
            if name in names.split():
                return f"it is rf.integrations.{library}.{name}"
        for acronym, estimator in acronyms(package):
            if squeezed(acronym) == plain:
                return f"{acronym} is {estimator}"
    close = nearest(name, (*package.__all__, *modules))
    return f"did you mean {package.__name__.replace('randfeat', 'rf')}.{close}?" if close else None


def attribute_error(thing: object, name: str, words: Mapping[str, str]) -> AttributeError:
    """The AttributeError of an object, with a hint.

    words : what is to be written instead, by names in one string.
    """
    message = f"{type(thing).__name__!r} object has no attribute {name!r}"
    if name.startswith("_"):
        return AttributeError(message)
    for names, instead in words.items():
        if name in names.split():
            return AttributeError(f"{message}; {instead}")
    close = nearest(name, [found for found in dir(type(thing)) if not found.startswith("_")])
    return AttributeError(f"{message}; did you mean {close}?" if close else message)


def acronyms(package: Any) -> Iterator[tuple[str, str]]:
    """Acronyms of papers, each with its estimator."""
    for name in package.estimators.__all__:
        cls = getattr(package.estimators, name)
        if inspect.isabstract(cls) or not hasattr(cls, "acronyms"):
            continue
        found = cls.acronyms
        where = "rf" if name in package.__all__ else "rf.estimators"
        if not isinstance(found, tuple):  # a property, which depends on parameters
            found = cls.example().acronyms
        yield from ((acronym, f"{where}.{name}") for acronym in found)
