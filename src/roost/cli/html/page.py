"""The frame of every page: title, figures, sections, and the colours for light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from roost.cli.html.layout import NARROW, layout_style
from roost.cli.html.markup import element, plain
from roost.cli.html.table import table_style

# One colour a component, told apart also by people who see few colours (after Okabe and Ito), for light and for dark.
_LIGHT = ("#0072b2", "#c2570c", "#007a5a", "#a03c78", "#4f7d00", "#6a51a3", "#8a6100", "#00798c")
_DARK = ("#5ab4e5", "#f0934e", "#3fc79a", "#e08cba", "#a6ce4a", "#b39ddb", "#e0b64a", "#4dd0e1")

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2024;--muted:#5a636b;--line:#d5dade;--soft:#eef1f3;
--activations:#8d979f;--context:#5a636b;--alarm:#b3261e;LIGHT}
@media(prefers-color-scheme:dark){:root{--paper:#14181b;--ink:#e8ecef;--muted:#a3adb5;--line:#3a4248;--soft:#20262a;
--activations:#6d7780;--context:#a3adb5;--alarm:#ff8a80;DARK}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:28px 32px 48px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",Arial,sans-serif}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:36px 0 6px}h3{font-size:14px;margin:14px 0 2px}
h1,h3,p,li,dd{overflow-wrap:anywhere}
p{margin:4px 0 10px;max-width:90ch}.muted{color:var(--muted)}
.badge{font-size:13px;font-weight:600;border:1px solid var(--muted);border-radius:4px;padding:1px 8px;margin-left:10px;
vertical-align:4px}
dl{display:flex;flex-wrap:wrap;gap:8px 12px;margin:16px 0 0}
dl div{background:var(--soft);border-radius:6px;padding:7px 14px;max-width:100%}
dt{font-size:12px;color:var(--muted)}dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto}
svg text{font-size:12px;fill:var(--ink)}svg text.muted{fill:var(--muted)}svg text.on{fill:var(--paper);font-size:11px}
svg text.number{paint-order:stroke;stroke:var(--paper);stroke-width:3px}
svg text.alarm{fill:var(--alarm);paint-order:stroke;stroke:var(--paper);stroke-width:3px}
ul.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 20px;margin:6px 0;padding:0;font-size:13px}
ul.legend li{display:flex;align-items:baseline}
ul.legend i{flex:none;width:12px;height:12px;border-radius:2px;margin-right:7px;position:relative;top:1px}
footer{margin-top:40px;font-size:13px;color:var(--muted)}
@media(max-width:NARROWpx){body{padding:16px 16px 32px}}
"""


def page(title: str, badge: str, subtitle: str, figures: Mapping[str, str], sections: Iterable[str]) -> str:
    """The whole document. ``badge`` stands beside the title; ``sections`` are markup."""
    shown = "".join(
        element("div", element("dt", plain(name)) + element("dd", plain(value))) for name, value in figures.items()
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        # The browser keeps the page's word: no script, nothing from the network.
        + """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"""
        + element("title", plain(f"{title} ({badge}): {subtitle}"))
        + element("style", f"{_style()}{layout_style()}\n{table_style()}")
    )
    body = (
        element("h1", plain(title) + element("span", plain(badge), class_="badge"))
        + element("p", plain(subtitle), class_="muted")
        + element("dl", shown)
        + "".join(sections)
        + element("footer", "Made by Roost.")
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _style() -> str:
    light = "".join(f"--c{index}:{colour};" for index, colour in enumerate(_LIGHT))
    dark = "".join(f"--c{index}:{colour};" for index, colour in enumerate(_DARK))
    return _STYLE.replace("LIGHT", light).replace("DARK", dark).replace("NARROW", f"{NARROW.below_px}")


def section(heading: str, *parts: str, note: str = "") -> str:
    """A section with its heading and a sentence below it."""
    explained = element("p", plain(note), class_="muted") if note else ""
    return element("section", element("h2", plain(heading)) + explained + "".join(parts))


def colour(index: int) -> str:
    """The colour of the component in this place; places beyond the last begin anew."""
    return f"var(--c{index % len(_LIGHT)})"


def legend(entries: Mapping[str, str]) -> str:
    """Names and their colours."""
    items = "".join(
        element("li", element("i", "", style=f"background:{fill}") + plain(name)) for name, fill in entries.items()
    )
    return element("ul", items, class_="legend")
