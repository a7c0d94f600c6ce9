"""Names that differ by a slip of the pen, or by what people spell in different ways."""

from collections.abc import Iterable, Mapping

KINDS = ("kernel", "features", "attention")
"""Words that people leave out at the end of a name."""

ALIKE, LONGER = 0.8, 2
"""The least share of characters in common, and the most that one name may be longer than the other."""


def nearest(slip: str, offered: Iterable[str]) -> str | None:
    """The one of the names that is nearly `slip`, if there is one."""
    import difflib  # where it is needed, as it takes long to import

    plain = squeezed(slip)
    names = {squeezed(name): name for name in offered}
    for form in (plain, *(plain + kind for kind in KINDS)):
        if form in names:
            return names[form]
    near = [name for name in names if abs(len(name) - len(plain)) <= LONGER]
    close = difflib.get_close_matches(plain, near, n=1, cutoff=ALIKE)
    return names[close[0]] if close else None


def squeezed(name: str) -> str:
    """A name without what people spell in different ways: case, underscores, signs."""
    name = name.replace("++", "plusplus").replace("+", "plus").replace("#", "sharp")
    return name.replace("_", "").replace("-", "").casefold()


def choice_hint(slip: str, offered: Iterable[str], others: Mapping[str, str]) -> str:
    """`; perhaps 'rbf' was meant` at the end of a message that lists what is offered, or nothing.

    others : other names for what is offered.
    """
    offered = list(offered)
    found = nearest(slip, [*offered, *(name for name, right in others.items() if right in offered)])
    return f"; perhaps {others.get(found, found)!r} was meant" if found else ""
