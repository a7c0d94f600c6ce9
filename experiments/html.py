"""HTML that is escaped by construction: text becomes markup only through `element`."""

import html

VOID = {"img", "meta", "br"}


class Html(str):
    """Markup; any other string is text."""

    __slots__ = ()


def element(tag: str, /, *content: str, **attributes: str) -> Html:
    """`<tag attributes>content</tag>`, escaped; attributes are written `class_` for class, `data_x` for data-x."""
    pairs = [f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for name, value in attributes.items()]
    opening = f"<{tag}{''.join(pairs)}>"
    if tag in VOID:
        return Html(opening)
    inner = "".join(part if isinstance(part, Html) else html.escape(part, quote=False) for part in content)
    return Html(f"{opening}{inner}</{tag}>")
