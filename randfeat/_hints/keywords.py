"""Keywords that a function or a constructor does not have: a TypeError that names the right word."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from randfeat._hints.words import KEYWORDS, NOTES

__all__ = ["Hinted", "hinted"]

F = TypeVar("F", bound=Callable[..., Any])


def hinted(function: F) -> F:
    """The function, with hints for keywords that it does not have."""
    known = parameters(function)
    refuse = functools.partial(refuse_keywords, function.__qualname__, known)

    def call(*args, **keywords):  # type: ignore[no-untyped-def]
        if not keywords.keys() <= known:
            refuse(keywords)
        return function(*args, **keywords)

    # With the globals of its module, or doctest would take the function for another module's and skip its examples.
    same_module = FunctionType(call.__code__, function.__globals__, function.__name__, None, call.__closure__)
    return cast(F, functools.update_wrapper(same_module, function))


def create(cls: type["Hinted"], *args: Any, **keywords: Any) -> "Hinted":
    """The object, not yet initialized, if the constructor has these keywords."""
    if keywords and not keywords.keys() <= parameters(cls.__init__) and not takes_any(cls.__init__):
        refuse_keywords(cls.__name__, parameters(cls.__init__), keywords)
    return super(Hinted, cls).__new__(cls)


class Hinted:
    """Hints for keywords that the constructor of a class does not have."""

    if not TYPE_CHECKING:
        # Not the function itself, whose signature `inspect` and Sphinx would take for that of the class.
        __new__ = staticmethod(create.__call__)

    def __init__(self) -> None:
        """No parameters, where a subclass has none."""


@functools.cache
def parameters(function: Callable[..., Any]) -> frozenset[str]:
    """The keywords of a function; its `self`, too, which nobody passes by name."""
    return frozenset(inspect.signature(function).parameters)


def takes_any(function: Callable[..., Any]) -> bool:
    """Whether a function has `**keywords`, and so is itself to say which it takes."""
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(function).parameters.values())


def refuse_keywords(name: str, known: frozenset[str], keywords: Mapping[str, Any]) -> NoReturn:
    """The TypeError that Python would raise, and the word that was meant."""
    slip = next(word for word in keywords if word not in known)
    raise TypeError(f"{name}() got an unexpected keyword argument {slip!r}; {keyword_hint(slip, known)}.")


def keyword_hint(slip: str, known: frozenset[str]) -> str:
    """The right word, a near one, or all there are."""
    for word, others in KEYWORDS.items():
        if word in known and slip in others.split():
            note = f" ({NOTES[slip]})" if slip in NOTES else ""
            return f"the word here is {word}{note}"
    import difflib  # where it is needed, as it takes long to import

    taken = sorted(known - {"self", "cls"})
    close = difflib.get_close_matches(slip, taken, n=1)
    if close:
        return f"perhaps {close[0]} was meant"
    return f"it takes {', '.join(taken) or 'none'}"
