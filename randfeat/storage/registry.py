"""Registry of the classes that describe laws: those of this library, and registered ones of users."""

import dataclasses
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar, overload

from randfeat._hints import short
from randfeat.couplings import Coupling
from randfeat.couplings.base import coupling_names, register_coupling
from randfeat.estimators import Estimator, Mixer
from randfeat.kernels import Kernel

LAWS = Kernel | Coupling | Estimator | Mixer
MODULES = ("randfeat.kernels", "randfeat.couplings", "randfeat.estimators")
C = TypeVar("C", bound=type)
_REGISTERED: dict[str, type] = {}
_NAMED: dict[str, str] = {}
"""The class that was registered under each name of a coupling."""


@overload
def register(cls: C) -> C: ...


@overload
def register(*, name: str) -> Callable[[C], C]: ...


def register(cls: Any = None, *, name: str | None = None) -> Any:
    """Register an estimator, kernel or coupling of your own, for `catalogue`, `save` and `load`.

    cls : a frozen dataclass that derives from `Estimator`, `Kernel` or `Coupling` (or a mixer of hybrids). Files hold
        the name of the class and its fields, and no code. So a program must import the module with the class before it
        loads a file.
    name : the name of a coupling, as in `coupling="antithetic"`. By default it is made from the class name, "my-rows"
        for MyRows.

    Returns the class, so it can be used as a decorator above `@dataclass`. The same class can be registered again, as
    when a cell of a notebook is run again. Another class with the same name raises ValueError.

    >>> from dataclasses import dataclass
    >>> import numpy as np, randfeat as rf
    >>> @rf.register
    ... @dataclass(frozen=True)
    ... class LongRows(rf.Independent):
    ...     def sample(self, num_rows, dim, *, rng, batch_shape=()):
    ...         return 2 * super().sample(num_rows, dim, rng=rng, batch_shape=batch_shape)
    >>> rf.PositiveFeatures(coupling="long-rows").coupling
    LongRows()
    >>> "LongRows" in [entry.name for entry in rf.catalogue("coupling")]
    True
    """
    if cls is None:
        return lambda cls: registered_class(cls, name)
    return registered_class(cls, name)


def registered_class(cls: C, name: str | None) -> C:
    """The class, which is known from now on."""
    if not (isinstance(cls, type) and issubclass(cls, LAWS)):
        raise TypeError(f"expected a class that derives from Estimator, Kernel or Coupling, got {short(cls)}.")
    parameters = getattr(cls, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise TypeError(f"{cls.__name__} must be a frozen dataclass: write @dataclass(frozen=True) above the class.")
    known = classes().get(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"there is a class {cls.__name__} in {known.__module__}: give this one another name.")
    if issubclass(cls, Estimator):
        check_example(cls)
    if issubclass(cls, Coupling):
        name = hyphenated(cls.__name__) if name is None else name
        if not isinstance(name, str) or not name:
            raise TypeError(f"name must be a string that is not empty, got {short(name)}.")
        if name in coupling_names() and _NAMED.get(name) != cls.__qualname__:
            raise ValueError(f"there is a coupling {name!r}: register with another name, register(name=...).")
        register_coupling(name, cls)
        _NAMED[name] = cls.__qualname__
    elif name is not None:
        raise TypeError(f"name is for couplings, but {cls.__name__} is none.")
    _REGISTERED[cls.__name__] = cls
    return cls


def check_example(cls: type[Estimator]) -> None:
    """TypeError where the catalogue could not make an instance."""
    try:
        example = cls.example()
    except Exception as error:  # whatever its constructor says
        raise TypeError(
            f"{cls.__name__}.example() must make an instance, for the catalogue, but: {error} Give the fields default "
            "values, or override example."
        ) from error
    if type(example) is not cls:
        raise TypeError(f"{cls.__name__}.example() must make an instance of its class, got {short(example)}.")
    try:
        dataclasses.replace(example)
    except Exception as error:  # it has an __init__ of its own, which a file could not call
        raise TypeError(f"{cls.__name__} must be made from its fields alone, but: {error}") from error


def hyphenated(name: str) -> str:
    """`MyRows` as `my-rows`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def registered(base: type) -> list[type]:
    """The registered classes that derive from `base`."""
    return [cls for cls in _REGISTERED.values() if issubclass(cls, base)]


def classes() -> dict[str, type]:
    """The frozen dataclasses that describe laws, by name: nothing else is made from a file."""
    found: dict[str, type] = dict(_REGISTERED)
    for name, module in list(sys.modules.items()):
        if name.startswith(MODULES):
            own = (thing for thing in vars(module).values() if isinstance(thing, type) and thing.__module__ == name)
            found |= {cls.__name__: cls for cls in own if issubclass(cls, LAWS) and dataclasses.is_dataclass(cls)}
    return found
