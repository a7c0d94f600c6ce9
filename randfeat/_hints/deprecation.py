"""Old words that still work: a DeprecationWarning names the new word, and the release in which the old one goes."""

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeVar, cast

from randfeat._hints.caller import warn_caller
from randfeat._hints.keywords import in_the_module_of

F = TypeVar("F", bound=Callable[..., Any])

FEWEST_RELEASES = 2
"""Minor releases in which an old word still works."""


@dataclass(frozen=True)
class Deprecation:
    """An old word, what to write instead, the first release that warns, and the first one without the old word.

    A function or a value that has a new name states one, and calls `warn` where the old word comes in.

    >>> old = Deprecation("rf.gram", "features.estimate(x, y)", since="0.2", gone="0.4")
    >>> old.message
    'rf.gram is deprecated since randfeat 0.2 and will be gone in 0.4; write features.estimate(x, y).'
    >>> Deprecation("rf.gram", "features.estimate(x, y)", since="0.2", gone="0.3")
    Traceback (most recent call last):
        ...
    ValueError: rf.gram must work in at least 2 minor releases: 0.2 to 0.3 is 1.
    """

    old: str
    new: str
    since: str
    gone: str

    def __post_init__(self) -> None:
        (major, minor), (last_major, last_minor) = version(self.since), version(self.gone)
        num_releases = last_minor - minor if major == last_major else 0
        if last_major <= major and num_releases < FEWEST_RELEASES:
            raise ValueError(
                f"{self.old} must work in at least {FEWEST_RELEASES} minor releases: "
                f"{self.since} to {self.gone} is {num_releases}."
            )

    @property
    def message(self) -> str:
        """The text of the warning."""
        return (
            f"{self.old} is deprecated since randfeat {self.since} and will be gone in {self.gone}; write {self.new}."
        )

    def warn(self) -> None:
        """Warn at the user's line of code."""
        warn_caller(self.message, DeprecationWarning)


def version(release: str) -> tuple[int, int]:
    """(major, minor) of a release such as "0.2" or "0.2.1"."""
    major, minor = map(int, release.split(".")[:2])
    return major, minor


def renamed_keywords(since: str, gone: str, **words: str) -> Callable[[F], F]:
    """A decorator for functions whose keywords have new names: `old="new"`; the old ones warn.

    >>> @renamed_keywords("0.2", "0.4", queries="query")
    ... def longest(query):
    ...     return max(query)
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     longest(queries=[1, 3, 2])
    3
    >>> print(caught[0].message)
    queries of longest is deprecated since randfeat 0.2 and will be gone in 0.4; write query.
    """

    def renaming(function: F) -> F:
        name = function.__qualname__
        old_words = {old: Deprecation(f"{old} of {name}", new, since, gone) for old, new in words.items()}

        def call(*args, **keywords):  # type: ignore[no-untyped-def]
            for old in old_words.keys() & keywords.keys():
                if old_words[old].new in keywords:
                    raise TypeError(f"{name}() got {old}, the old name of {old_words[old].new}, beside it; write one.")
                old_words[old].warn()
                keywords[old_words[old].new] = keywords.pop(old)
            return function(*args, **keywords)

        return cast(F, in_the_module_of(function, cast(FunctionType, call)))

    return renaming
