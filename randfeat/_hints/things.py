"""Arguments that are not what was expected, in the words of an error."""

from typing import Any


def described(thing: Any, then: str = "") -> str:
    """The class of an argument; where it is a class itself, how an object is made.

    then : what is to be done with the object, as ".draw(dim, num_features)".
    """
    return shown(thing, then) if isinstance(thing, type) else type(thing).__name__


def shown(thing: Any, then: str = "") -> str:
    """The argument as it is written; where it is a class, how an object is made."""
    return f"the class {thing.__name__}; write {thing.__name__}(){then}" if isinstance(thing, type) else repr(thing)
