"""Elements of HTML and SVG, escaped; numbers with one decimal."""

from __future__ import annotations

from html import escape

from roost.cli.screen import clean

# Width of a character of the charts' text, at 12 pixels: wide enough for capitals and digits in any sans-serif.
CHARACTER_PX = 7.0


def element(name: str, content: str = "", **attributes: object) -> str:
    """One element around ``content``, which is markup already. ``class_`` is class, ``stroke_width`` stroke-width."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{content}</{name}>"


def plain(text: object) -> str:
    """Text as markup: names from a model or a results file may hold anything."""
    return escape(clean(text))


def label(x: float, y: float, text: object, anchor: str = "start", **attributes: object) -> str:
    """Text in a chart."""
    return element("text", plain(text), x=x, y=y, text_anchor=anchor, **attributes)


def box(x: float, y: float, width: float, height: float, tip: str = "", **attributes: object) -> str:
    """A rectangle in a chart, with what a pointer over it shows."""
    title = element("title", plain(tip)) if tip else ""
    return element("rect", title, x=x, y=y, width=width, height=height, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> str:
    return element("line", "", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def shortened(text: str, width: float) -> str:
    """As much of the text as fits, with an ellipsis; nothing where not even that says anything."""
    most = int(width / CHARACTER_PX)
    if len(text) <= most:
        return text
    return f"{text[: most - 1]}…" if most >= 5 else ""


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else clean(value)
