"""Keywords that a function or a constructor does not have: a TypeError that names the right word."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from randfeat._hints.similar import nearest
from randfeat._hints.words import ABSENT, KEYWORDS, NOTES

F = TypeVar("F", bound=Callable[..., Any])


def hinted(function: F) -> F:
    """The function, with hints for keywords that it does not have.

    One with `**options` is to say itself which it takes. Only other libraries' words for its own keywords are answered.
    """
    known = parameters(function)
    refuse = refuse_foreign_keywords if takes_any(function) else refuse_keywords
    check = functools.partial(refuse, function.__qualname__, known)

    def call(*args, **keywords):  # type: ignore[no-untyped-def]
        if not keywords.keys() <= known:
            check(keywords)
        return function(*args, **keywords)

    return cast(F, in_the_module_of(function, cast(FunctionType, call)))


def in_the_module_of(function: Callable[..., Any], call: FunctionType) -> Callable[..., Any]:
    """`call` as a wrapper of `function` that has its globals, so that doctest finds its examples in its module.

    What `call` needs must be in its closure.
    """
    of_its_module = cast(FunctionType, function).__globals__
    return functools.update_wrapper(
        FunctionType(call.__code__, of_its_module, function.__name__, None, call.__closure__), function
    )


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
                later = parameters(cls.draw) if hasattr(cls, "draw") else frozenset()
                refuse_keywords(cls.__name__, parameters(cls.__init__), keywords, later)
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


def refuse_keywords(
    name: str, known: frozenset[str], keywords: Mapping[str, Any], later: frozenset[str] = frozenset()
) -> NoReturn:
    """The TypeError that Python would raise, and the word that was meant.

    later : keywords of the method `draw` of the object that is constructed.
    """
    slip = next(word for word in keywords if word not in known)
    hint = translated(slip, known - keywords.keys()) or to_draw(slip, name, later) or keyword_hint(slip, known)
    raise TypeError(f"{name}() got an unexpected keyword argument {slip!r}; {hint}.")


def refuse_foreign_keywords(name: str, known: frozenset[str], keywords: Mapping[str, Any]) -> None:
    """Refuse only what other libraries call a keyword that is known; the others may be options."""
    for slip in keywords:
        if slip not in known and translated(slip, known - keywords.keys()):
            refuse_keywords(name, known, {slip: None, **keywords})


def translated(slip: str, free: frozenset[str]) -> str | None:
    """The right word for another library's, among the keywords that are still free.

    One word may stand for several: `num_samples` for `num_features`, or for `num_draws` where those are given.
    """
    for word in meant_by(slip):
        if word in free:
            note = NOTES.get((word, slip))
            return f"the word here is {word} ({note})" if note else f"the word here is {word}"
    return None


def to_draw(slip: str, name: str, later: frozenset[str]) -> str | None:
    """A hint for keywords of `draw` that a constructor was given."""
    word = next((word for word in (slip, *meant_by(slip)) if word in later), None)
    if word is None:
        return None
    what = "num_features and dim go" if word in ("num_features", "dim") else f"{word} goes"
    return f"{what} to draw(...): {name}(...).draw(dim, num_features, rng=...)"


def keyword_hint(slip: str, known: frozenset[str]) -> str:
    """A hint for a keyword that no other library has: a reason, the nearest one, or the list of all."""
    if slip in ABSENT:
        return ABSENT[slip]
    taken = sorted(known - {"self", "cls"})
    close = nearest(slip, taken)
    return f"perhaps {close} was meant" if close else f"it takes {', '.join(taken) or 'none'}"


def meant_by(slip: str) -> list[str]:
    """The words here for another library's keyword."""
    return [word for word, others in KEYWORDS.items() if slip in others.split()]
