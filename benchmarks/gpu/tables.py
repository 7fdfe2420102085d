"""The suite's results as one Markdown page, written anew from the files of all items.

A step's bound is max(compute, bytes / link): compute is the resident step of the same run, bytes are the blocks that
the candidate doesn't keep, link is the pinned rate that the ``rates`` item measured.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from roost.api.models.inspect import inspect_model
from roost.blocks import resident_indices
from roost.facts.model import Inventory
from roost.planner.rules.names import kind_of
from roost.units import format_bytes, format_seconds

ROOT = Path(__file__).resolve().parents[2]

Record = dict[str, Any]

TEST_COUNTS = {"passed": "passed", "failures": "failed", "errors": "in error", "skipped": "skipped"}

# What the project wants of a bench; the figures stand beside them, whichever way they came out.
PEAK_ERROR, STEP_ERROR, REGRET = 0.03, 0.10, 0.03


def write_tables(results: Path) -> Path:
    """Writes ``README.md`` beside the results and returns its path."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json")) if _is_result(path)}
    page = results / "README.md"
    page.write_text("\n".join(lines_of(found)) + "\n", encoding="utf-8")
    return page


def lines_of(found: Mapping[str, Record]) -> Iterator[str]:
    """The page's lines, for the results by the names of their items."""
    link = link_bytes_per_s(found.get("rates"))
    kinds = sorted({each["device_kind"] for each in found.values() if "device_kind" in each})
    yield "# What the suite measured"
    yield ""
    yield "Written by `benchmarks/gpu/tables.py` from the JSON files beside this page."
    if kinds != ["cuda"]:
        yield ""
        yield "**Emulated: these figures are of a CPU and of throttled copies, not of a GPU.**"
    writers: Sequence[tuple[str, Callable[[Record], Iterator[str]]]] = (
        ("generations", generation_lines),
        ("-load", load_lines),
        ("-reserved", reserved_lines),
        ("smoke", smoke_lines),
    )
    for name, record in found.items():
        yield from ("", f"## {name}", "")
        if name == "tests":
            yield from tests_lines(record)
        elif "tool" in record:
            yield from tool_lines(record)
        elif "candidates" in record:
            yield from bench_lines(record, link)
        else:
            written = [writer for ending, writer in writers if name.endswith(ending)]
            yield from written[0](record) if written else raw_lines(name)


def tests_lines(record: Record) -> Iterator[str]:
    """How many tests passed, and the names of the others."""
    counts = (f"{record[name]} {said}" for name, said in TEST_COUNTS.items())
    yield f"{', '.join(counts)}."
    yield from (f"- failed: `{name}`" for name in record["failed"])


def tool_lines(record: Record) -> Iterator[str]:
    """Another tool's figures, or why there are none."""
    if record["status"] != "ok":
        yield f"{record['tool']} is {record['status']}: {record['reason']}."
        return
    share, step, peak = record["resident_share"], format_seconds(record["step_s"]), format_bytes(record["peak_bytes"])
    yield f"{record['tool']}, {share:.0%} resident: {step} a step, peak {peak}, digest `{record['digest'][:16]}`."


def smoke_lines(record: Record) -> Iterator[str]:
    """Bits and waits of the tiny pipelines, the real-size stack's passes, and what failed."""
    yield from (f"- failed: {part}: {reason}" for part, reason in record["failed"].items())
    families = record.get("tiny", {})
    head = ("pipeline", "same bits", "host waits of a generation, by strategy")
    rows = [
        (name, "yes" if each["same_bits"] else "NO", waits_cell(each["strategies"])) for name, each in families.items()
    ]
    yield from table(head, rows)
    yield ""
    head = ("resident share", "first pass", "later ones", "stalls", "host waits", "allocated", "reserved")
    yield from table(head, [stack_cells(share, each) for share, each in record.get("stack", {}).items()])


def waits_cell(strategies: Mapping[str, Record]) -> str:
    return "; ".join(f"{name} {each['host_waits']}" for name, each in strategies.items())


def stack_cells(share: str, row: Record) -> tuple[str, ...]:
    seconds = tuple(seconds_cell(row[key]) for key in ("first_s", "steady_s", "stall_s"))
    return (share, *seconds, str(row["host_waits"]), *map(bytes_cell, (row["allocated_bytes"], row["reserved_bytes"])))


def reserved_lines(record: Record) -> Iterator[str]:
    """The last generation's bytes under each setting of the allocator."""
    rows = [
        (name, *(bytes_cell(generations[-1][key]) for key in ("peak_bytes", "reserved_bytes")))
        for name, generations in record.items()
        if isinstance(generations, list)
    ]
    yield from table(("allocator", "allocated", "reserved"), rows)


def raw_lines(name: str) -> Iterator[str]:
    """For results that need no reading."""
    yield f"See [{name}.json]({name}.json)."


def bench_lines(record: Record, link: float | None) -> Iterator[str]:
    """Every candidate of one bench, and how the predictions did."""
    directory = ROOT / record["model"]
    workload, inventory = record["workload"], inspect_model(directory if directory.is_dir() else record["model"])
    frames = f" × {workload['frames']} frames" if workload["frames"] else ""
    yield (
        f"{Path(record['model']).name}, {workload['width']}×{workload['height']}{frames},"
        f" {record['trial_steps']} of {workload['steps']} steps measured, on {record['machine']['gpu']['name']}"
        f" ({record['device_kind']}), budget {format_bytes(record['machine']['budget_bytes'])};"
        f" winner: {record['winner'] or 'none'}."
    )
    yield ""
    head = (
        "candidate",
        "status",
        "step",
        "÷ bound",
        "generation",
        "peak",
        "reserved",
        "pinned ÷ weights",
        "step error",
    )
    yield from table(head, [candidate_cells(each, record, inventory, link) for each in record["candidates"]])
    stages = [cells for each in record["candidates"] if (cells := stage_cells(each, record))]
    if stages:
        yield ""
        names = list(dict.fromkeys(stage["name"] for each in record["candidates"] for stage in each["stages"]))
        yield from table(("stage seconds", *names), stages)
    yield ""
    yield from prediction_lines(record)


def candidate_cells(row: Record, record: Record, inventory: Inventory, link: float | None) -> tuple[str, ...]:
    """One candidate's cells; what is not known is empty."""
    step_s, weights = row["step_s"]["median"], inventory.load_bytes
    bound_s = step_bound_s(row, record, inventory, link)
    predicted = row["predicted"]
    return (
        row["name"],
        row["status"] if row["status"] == "ok" else f"{row['status']}: {row['reason']}",
        seconds_cell(step_s),
        f"{step_s / bound_s:.3f}" if step_s and bound_s else "",
        seconds_cell(row["total_s"]),
        bytes_cell(row["peak_bytes"]),
        bytes_cell(row["reserved_bytes"]),
        f"{row['pinned_bytes'] / weights:.3f}" if row["pinned_bytes"] else "",
        f"{predicted['step_s']['mid'] / step_s - 1:+.1%}" if predicted and step_s else "",
    )


def stage_cells(row: Record, record: Record) -> tuple[str, ...] | None:
    """Seconds of each stage; None for a candidate that did not get through."""
    if not row["stages"]:
        return None
    names = dict.fromkeys(stage["name"] for each in record["candidates"] for stage in each["stages"])
    seconds = dict.fromkeys(names, 0.0)
    for stage in row["stages"]:
        seconds[stage["name"]] += stage["seconds"]
    return (row["name"], *(f"{each:.3f}" for each in seconds.values()))


def step_bound_s(row: Record, record: Record, inventory: Inventory, link: float | None) -> float | None:
    """The least seconds that a step with these resident blocks can take; None for what isn't streamed.

    None too for the leading blocks of several stacks: results don't say which stack comes first.
    """
    resident = next((each for each in record["candidates"] if each["strategy"] == "resident"), None)
    if (
        link is None
        or resident is None
        or resident["step_s"]["median"] is None
        or "resident_blocks" not in row["params"]
    ):
        return None
    dits = [each for each in inventory.components if kind_of(each) == "dit"]
    sizes = [size for stack in dits[0].units for size in stack.block_bytes]
    counts = [stack.count for stack in dits[0].units]
    if len(counts) > 1 and row["params"]["resident_policy"] != "strided":
        return None
    kept = resident_indices(counts, row["params"]["resident_blocks"], row["params"]["resident_policy"])
    streamed = sum(size for index, size in enumerate(sizes) if index not in kept)
    return max(resident["step_s"]["median"], streamed / link)


def prediction_lines(record: Record) -> Iterator[str]:
    """How far predictions were off, and what choosing by them cost."""
    ok = [each for each in record["candidates"] if each["status"] in ("ok", "eliminated") and each["predicted"]]
    steps = [
        each["predicted"]["step_s"]["mid"] / each["step_s"]["median"] - 1 for each in ok if each["step_s"]["median"]
    ]
    peaks = [each["predicted"]["peak_bytes"]["mid"] / each["peak_bytes"] - 1 for each in ok if each["peak_bytes"]]
    totals = {each["name"]: each["total_s"] for each in ok if each["total_s"]}
    if steps:
        worst = max(map(abs, steps))
        middle = statistics.median(steps)
        yield f"- steps predicted: median error {middle:+.1%}, worst {worst:.1%} (goal {STEP_ERROR:.0%})"
    if peaks:
        low, high = min(peaks), max(peaks)
        yield f"- peaks predicted: {low:+.1%} to {high:+.1%} (goal {PEAK_ERROR:.0%}, never under by more than 1 %)"
    if "searched plan" in totals:
        regret = totals["searched plan"] / min(totals.values()) - 1
        yield f"- the searched plan is {regret:.1%} slower than the fastest measured (goal {REGRET:.0%})"


def generation_lines(record: Record) -> Iterator[str]:
    """The first, second, tenth and last generation, and whether reserved memory grew."""
    rows = record["generations"]
    wanted = [index for index in (0, 1, 9, len(rows) - 1) if index < len(rows)]
    cells = [
        (str(index + 1), seconds_cell(rows[index]["seconds"]), bytes_cell(rows[index]["peak_bytes"]),
         bytes_cell(rows[index]["reserved_bytes"]))
        for index in wanted
    ]  # fmt: skip
    yield f"{record['steps']} steps each, on {record['hardware']}; loaded in {format_seconds(record['load_s'])}."
    yield ""
    yield from table(("generation", "seconds", "peak", "reserved"), cells)


def load_lines(record: Record) -> Iterator[str]:
    """Loading beside a plain read of the same files."""
    cells = [
        (
            str(index + 1),
            f"{each['load_s']:.2f}",
            f"{record['bytes'] / each['load_s'] / 1e9:.2f}",
            f"{each['plain_read_s']:.2f}",
            f"{each['load_s'] / each['plain_read_s']:.2f}",
        )
        for index, each in enumerate(record["rounds"])
    ]
    yield f"{format_bytes(record['bytes'])} of files."
    yield ""
    yield from table(("round", "load s", "GB/s", "plain read s", "load ÷ read"), cells)


def link_bytes_per_s(rates: Record | None) -> float | None:
    """The measured rate of copies from pinned memory; an emulated link has the speed that each bench gives it."""
    if rates is None or rates["device"]["device_kind"] == "emulated":
        return None
    return float(rates["rates"]["pinned_h2d_bytes_per_s"]["value"])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table."""
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(each.replace('|', '/') for each in row)} |"


def seconds_cell(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.4g} s"  # ratios are told from these: four figures


def bytes_cell(count: int | None) -> str:
    return "" if count is None else format_bytes(count)


def _is_result(path: Path) -> bool:
    return not path.name.endswith(".part.json")
