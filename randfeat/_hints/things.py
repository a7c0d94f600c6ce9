"""Arguments that are not what was expected, in the words of an error."""

import reprlib
from typing import Any

SHORT = reprlib.Repr()
SHORT.maxlist = SHORT.maxtuple = SHORT.maxset = SHORT.maxfrozenset = SHORT.maxdict = SHORT.maxarray = 4
SHORT.maxstring = SHORT.maxother = 120


def described(thing: Any, then: str = "") -> str:
    """The class of an argument; where it is a class itself, how an object is made.

    then : what is to be done with the object, as ".draw(dim, num_features)".
    """
    return shown(thing, then) if isinstance(thing, type) else type(thing).__name__


def shown(thing: Any, then: str = "") -> str:
    """The argument as `short` writes it; where it is a class, how an object is made."""
    return f"the class {thing.__name__}; write {thing.__name__}(){then}" if isinstance(thing, type) else short(thing)


def short(thing: Any) -> str:
    """The argument as it is written, in one short line.

    Arrays of more than four numbers are named by their shape and dtype, long lists by their first entries.
    """
    shape = getattr(thing, "shape", None)
    if isinstance(shape, tuple) and (len(shape) > 1 or any(not isinstance(size, int) or size > 4 for size in shape)):
        kind = f" and dtype {thing.dtype}" if hasattr(thing, "dtype") else ""
        return f"{type(thing).__name__} of shape {tuple(shape)}{kind}"
    return " ".join(SHORT.repr(thing).split())
