"""HTML that is escaped by construction: text becomes markup only through `element`."""

import html

__all__ = ["Html", "element"]

VOID = {"img", "meta", "br"}


class Html(str):
    """Markup; any other string is text."""

    __slots__ = ()


def element(name: str, *content: str, **attributes: str) -> Html:
    """`<name attributes>content</name>`; text and attributes are escaped, `class_` and `data_x` lose and gain a dash."""
    pairs = (
        f' {attribute.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for attribute, value in attributes.items()
    )
    opening = f"<{name}{''.join(pairs)}>"
    if name in VOID:
        return Html(opening)
    inner = "".join(part if isinstance(part, Html) else html.escape(part, quote=False) for part in content)
    return Html(f"{opening}{inner}</{name}>")
