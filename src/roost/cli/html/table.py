"""Tables: a body for each row, which becomes a card with its columns' names where a window is too narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roost.cli.html.layout import MEDIUM, NARROW, Layout
from roost.cli.html.markup import element, plain

_STYLE = """
table{border-collapse:collapse;margin-top:10px;font-variant-numeric:tabular-nums}
thead,tbody{border-bottom:1px solid var(--line)}
th,td{text-align:left;padding:5px 16px 5px 0;vertical-align:top}
th{font-size:13px;color:var(--muted);font-weight:600;vertical-align:bottom}.number{text-align:right}
td.number{white-space:nowrap}td.title{overflow-wrap:anywhere}
td.note{padding-top:0;color:var(--muted)}td.note::before{content:attr(data-label) ": "}
"""

# A table's class is the widest layout in which its rows are cards.
_CARDS = """
@media(max-width:WIDTHpx){table.NAME{display:block}.NAME thead{display:none}.NAME tr{display:contents}
.NAME tbody{display:flex;flex-wrap:wrap;gap:8px 14px;border:1px solid var(--line);border-radius:6px;
padding:10px 12px;margin-top:10px}
.NAME td,.NAME td.note{display:block;min-width:64px;padding:0;text-align:left;white-space:normal;
overflow-wrap:anywhere;color:var(--ink)}
.NAME td::before,.NAME td.note::before{content:attr(data-label);display:block;font-size:12px;color:var(--muted)}
.NAME td:empty{display:none}.NAME td.title,.NAME td.note{flex-basis:100%}
.NAME td.title{font-weight:600}.NAME td.title::before{content:none}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a column is called. Numbers are aligned to the right; the title stands above the others in a card."""

    name: str
    kind: str | None = None


def columns(title: str, numbers: Sequence[str], others: Sequence[str] = ()) -> list[Column]:
    """A column of titles, then those of numbers, then those of other texts."""
    return [
        Column(name=title, kind="title"),
        *(Column(name=each, kind="number") for each in numbers),
        *(Column(name=each) for each in others),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A text for each column. ``note`` stands below them at the table's full width, so that it makes no cell tall."""

    cells: Sequence[str]
    note: str = ""


def table(columns: Sequence[Column], rows: Sequence[Row], note: str = "", cards_until: Layout = NARROW) -> str:
    """A table of plain texts. ``note`` names the rows' notes; rows are cards up to the layout ``cards_until``.

    The roles say that it is a table also where it is not displayed as one.
    """
    heads = "".join(element("th", plain(each.name), class_=each.kind, role="columnheader") for each in columns)
    head = element("thead", element("tr", heads, role="row"), role="rowgroup")
    bodies = "".join(_body(columns, row, note) for row in rows)
    return element("table", head + bodies, class_=cards_until.name, role="table")


def _body(columns: Sequence[Column], row: Row, note: str) -> str:
    cells = "".join(
        element("td", plain(cell), class_=each.kind, data_label=each.name, role="cell")
        for each, cell in zip(columns, row.cells, strict=True)
    )
    lines = element("tr", cells, role="row")
    if row.note:
        cell = element("td", plain(row.note), class_="note", colspan=len(columns), data_label=note, role="cell")
        lines += element("tr", cell, role="row")
    return element("tbody", lines, role="rowgroup")


def table_style() -> str:
    """The style rules of tables."""
    cards = (
        _CARDS.replace("WIDTH", f"{layout.below_px - 0.02:g}").replace("NAME", layout.name)
        for layout in (NARROW, MEDIUM)
        if layout.below_px
    )
    return _STYLE.strip() + "".join(cards)
