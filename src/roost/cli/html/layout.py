"""The widths for which every chart is drawn: its text keeps its size, and the browser shows the one that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from roost.cli.html.markup import element


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One width of the charts. ``below_px`` is the width of a window from which on the next layout is shown."""

    name: str
    width: float
    below_px: int | None


NARROW = Layout(name="narrow", width=360.0, below_px=680)
MEDIUM = Layout(name="medium", width=700.0, below_px=1000)
WIDE = Layout(name="wide", width=1080.0, below_px=None)
LAYOUTS = (NARROW, MEDIUM, WIDE)

# Draws a chart for a layout: its content and its height.
Drawing = Callable[[Layout], tuple[str, float]]


def chart(draw: Drawing, name: str) -> str:
    """An inline SVG for each layout, of which one is shown; ``name`` says what it shows to those who can't see it.

    What is not displayed is not read out either, so the name is heard once.
    """
    return "".join(_svg(layout, *draw(layout), name) for layout in LAYOUTS)


def _svg(layout: Layout, content: str, height: float, name: str) -> str:
    frame = f"0 0 {layout.width:g} {height:g}"
    return element("svg", content, viewBox=frame, role="img", aria_label=name, class_=layout.name)


def layout_style() -> str:
    """The style rules that show each layout in its windows; a narrow chart is not blown up beyond a half."""
    hidden = ",".join(f"svg.{each.name}" for each in LAYOUTS)
    rules, from_px = [f"{hidden}{{display:none}}svg.{NARROW.name}{{max-width:{NARROW.width * 1.5:g}px}}"], 0
    for each in LAYOUTS:
        until = f" and (max-width:{each.below_px - 0.02:g}px)" if each.below_px else ""
        rules.append(f"@media(min-width:{from_px}px){until}{{svg.{each.name}{{display:block}}}}")
        from_px = each.below_px or 0
    return "\n".join(rules)
