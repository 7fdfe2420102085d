"""The page of ``roost report``: candidates by seconds and VRAM, stages against their prediction, and the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from roost.cli.html.layout import MEDIUM, chart
from roost.cli.html.markup import CHARACTER_PX, box, element, label, plain
from roost.cli.html.page import colour, legend, page, section
from roost.cli.html.scatter import Point, scatter
from roost.cli.html.table import Row, columns, table
from roost.facts.stage import DENOISING
from roost.plan.results import ResultRow, StageTime
from roost.tune.results.document import Results
from roost.units import GiB, MiB, format_bytes, format_seconds

_SHOWN_STAGES = 4  # candidates whose stages are drawn
_BAR, _BAR_LEFT = 22.0, 78.0
_STATUS_COLOURS = {"ok": colour(0), "eliminated": colour(5), "wrong": "var(--alarm)"}


def report_page(results: Results) -> str:
    """The page of one bench."""
    emulated = results.device_kind == "emulated"
    sections = [_scatter_section(results)]
    drawn = _stage_section(results)
    sections += [drawn] if drawn else []
    sections.append(_table_section(results))
    if results.warnings:
        items = "".join(element("li", plain(each)) for each in results.warnings)
        sections.append(section("What to know of it", element("ul", items)))
    frames = f" × {results.workload.frames} frames" if results.workload.frames else ""
    size = f"{results.workload.width}×{results.workload.height}{frames}, {results.workload.steps_run} steps"
    return page(
        "Bench",
        "measured on an emulated device" if emulated else "measured",
        f"{results.model} · {size}, batch {results.workload.batch} · {results.machine.gpu.name}",
        _figures(results),
        sections,
    )


def _figures(results: Results) -> dict[str, str]:
    winner = next((each for each in results.candidates if each.title == results.winner), None)
    figures = {"winner": results.winner or "none"}
    if winner is not None and winner.total_s is not None:
        figures["its generation"] = format_seconds(winner.total_s)
        figures["its peak"] = format_bytes(winner.peak_bytes)
    if results.machine.budget_bytes is not None:
        figures["budget"] = format_bytes(results.machine.budget_bytes)
    ran = sum(each.total_s is not None for each in results.candidates)
    figures["ran to the end"] = f"{ran} of {len(results.candidates)}"
    return figures


def _scatter_section(results: Results) -> str:
    points, budget = [], results.machine.budget_bytes
    for number, row in enumerate(results.candidates, start=1):
        if row.total_s is not None and row.peak_bytes is not None:
            fill = _STATUS_COLOURS.get(row.status, "var(--muted)")
            tip = f"{number} {row.title}: {format_seconds(row.total_s)}, {format_bytes(row.peak_bytes)} ({row.status})"
            counts = row.status in ("ok", "eliminated")
            points.append(Point(number=number, x=row.peak_bytes, y=row.total_s, tip=tip, fill=fill, counts=counts))
        forecast = row.predicted
        if forecast is not None and forecast.first_s is not None:
            seconds, size = forecast.first_s.mid, forecast.peak_bytes.mid
            tip = f"{number} {row.title}, predicted: {format_seconds(seconds)}, {format_bytes(round(size))}"
            fits = budget is None or size <= budget
            points.append(Point(number=number, x=size, y=seconds, tip=tip, fill=colour(0), hollow=True, counts=fits))
    if not points:
        return section("Seconds and VRAM", note="No candidate ran to its end, and none has a prediction.")
    seen = [each for each in ("eliminated", "wrong") if any(row.status == each for row in results.candidates)]
    unit, name = (GiB, "GiB") if max(each.x for each in points) >= GiB else (MiB, "MiB")
    scaled = [replace(each, x=each.x / unit) for each in points]
    limit = (budget / unit, f"budget {format_bytes(budget)}") if budget else None
    axes = (f"peak VRAM, {name}", "seconds of a generation")
    return section(
        "Seconds and VRAM",
        legend({"ok": _STATUS_COLOURS["ok"], **{each: _STATUS_COLOURS[each] for each in seen}}),
        chart(
            lambda layout: scatter(scaled, axes, limit, layout),
            "Candidates by seconds of a generation and peak VRAM",
        ),
        note="Lower and further left is better. Numbers are rows of the table; rings are predictions, tied to what was"
        " measured. The solid line is the measured front, the dashed one the predicted: nothing that fits is below it.",
    )


def _stage_section(results: Results) -> str | None:
    """The fastest candidates' stages, measured above predicted, at one scale for each."""
    finished = [each for each in results.candidates if each.stages and each.total_s is not None]
    fastest = sorted(finished, key=lambda row: (row.title != results.winner, row.total_s))[:_SHOWN_STAGES]
    if not fastest:
        return None
    components = dict.fromkeys(stage.component for row in fastest for stage in row.stages)
    colours = {name: colour(index) for index, name in enumerate(components)}
    whole = results.workload.steps_run
    ran = results.trial_steps or whole
    charts = [_stages(row, ran / whole, colours) for row in fastest]
    steps = f"{ran} of the {whole} steps" if ran < whole else "all steps"
    return section(
        "Stages, measured against predicted",
        legend(colours),
        *charts,
        note=f"Of one generation with {steps}. Each candidate has a time scale of its own.",
    )


def _stages(row: ResultRow, share: float, colours: Mapping[str, str]) -> str:
    """Two bars. ``share`` is what was run of the denoising that was predicted."""
    predicted = [
        (stage, stage.seconds * (share if stage.phase in DENOISING else 1.0))
        for stage in (row.predicted.stages if row.predicted else ())
    ]
    bars = {"measured": [(each, each.seconds) for each in row.stages], "predicted": predicted}
    drawn = chart(lambda layout: _bars(bars, colours, layout.width), f"Stages of {row.title}, measured and predicted")
    return element("h3", plain(row.title)) + drawn


def _bars(
    bars: Mapping[str, Sequence[tuple[StageTime, float]]], colours: Mapping[str, str], width: float
) -> tuple[str, float]:
    totals = {name: sum(seconds for _, seconds in bar) for name, bar in bars.items()}
    written = {name: format_seconds(total) if bars[name] else "no prediction" for name, total in totals.items()}
    room = width - _BAR_LEFT - 8 - CHARACTER_PX * max(map(len, written.values()))
    longest = max(totals.values())
    scale = room / longest if longest else 0.0
    drawn = []
    for index, (name, bar) in enumerate(bars.items()):
        top = 4 + index * (_BAR + 6)
        drawn.append(label(_BAR_LEFT - 10, top + 15, name, "end", class_="muted"))
        drawn.append(_bar(bar, top, scale, colours))
        drawn.append(label(_BAR_LEFT + totals[name] * scale + 8, top + 15, written[name], class_="muted"))
    return "".join(drawn), 4 + 2 * (_BAR + 6)


def _bar(bar: Sequence[tuple[StageTime, float]], top: float, scale: float, colours: Mapping[str, str]) -> str:
    drawn, x = [], _BAR_LEFT
    for stage, seconds in bar:
        tip = f"{stage.name}, {stage.component}: {format_seconds(seconds)}"
        width = max(0.5, seconds * scale - 1)
        drawn.append(box(x, top, width, _BAR, tip, fill=colours.get(stage.component, "var(--muted)")))
        x += seconds * scale
    return "".join(drawn)


def _table_section(results: Results) -> str:
    numbers = ["Step", "Generation", "To winner", "Peak", "Predicted", "Predicted peak"]
    names = columns("Candidate", numbers, ["Status"])
    return section(
        "All candidates",
        table(names, [_row(results, *each) for each in enumerate(results.candidates, start=1)], "Why", MEDIUM),
        note="A step is the mean ± one standard deviation of n steady ones; predictions are of a generation without"
        " loading.",
    )


def _row(results: Results, number: int, row: ResultRow) -> Row:
    winner = next((each for each in results.candidates if each.title == results.winner), None)
    standing = next((each for each in results.standings if each.name == row.title), None)
    forecast = row.predicted
    cells = [
        f"{number}. {row.title}" + (" (winner)" if row.title == results.winner else ""),
        _step(row),
        _known(row.total_s),
        _ratio(row, winner, standing.ratio if standing else None, standing.ratio_error if standing else None),
        format_bytes(row.peak_bytes) if row.peak_bytes is not None else "",
        _known(forecast.first_s.mid if forecast and forecast.first_s else None),
        format_bytes(round(forecast.peak_bytes.mid)) if forecast else "",
        row.status,
    ]
    return Row(cells=cells, note=row.reason or "")


def _step(row: ResultRow) -> str:
    if row.step_s.mean is None:
        return ""
    spread = f" ± {_short(row.step_s.sd)}" if row.step_s.sd is not None else ""
    return f"{_short(row.step_s.mean)}{spread} ({row.step_s.n})"


def _short(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _known(seconds: float | None) -> str:
    return "" if seconds is None else format_seconds(seconds)


def _ratio(row: ResultRow, winner: ResultRow | None, raced: float | None, error: float | None) -> str:
    """The race's ratio with its error, else that of the generations."""
    if raced is not None:
        return f"{raced:.2f}" + (f" ± {error:.2f}" if error is not None else "")
    if winner is None or not winner.total_s or row.total_s is None:
        return ""
    return f"{row.total_s / winner.total_s:.2f}"
