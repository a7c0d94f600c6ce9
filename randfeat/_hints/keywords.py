"""Keywords that a function or a constructor does not have: a TypeError that names the right word."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from randfeat._hints.words import KEYWORDS, NOTES

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


class ConstructorSignature:
    """The signature of a class is that of its constructor, behind which `__new__` steps back."""

    def __get__(self, thing: object, cls: type) -> inspect.Signature:
        if thing is not None:
            raise AttributeError("__signature__")  # objects that are called have one of their own
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Hinted:
    """Hints for keywords that the constructor of a class does not have."""

    __signature__ = ConstructorSignature()

    if not TYPE_CHECKING:  # which would take its parameters for those of the constructor

        def __new__(cls, *args: Any, **keywords: Any) -> Any:
            if keywords and not keywords.keys() <= parameters(cls.__init__) and not takes_any(cls.__init__):
                refuse_keywords(cls.__name__, parameters(cls.__init__), keywords)
            return super().__new__(cls)

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
