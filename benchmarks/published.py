"""Predictions against timings and peaks that others published, of cards that this project has not measured.

    python benchmarks/published.py [-o benchmarks/results/published.json]

The points, their sources and what is assumed of each are in published.yaml. Every point is planned by the model's name
with nothing downloaded; dry runs are kept in the cache. Beside the JSON file the same table is written as Markdown.
"""

import sys
from pathlib import Path

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import argparse  # noqa: E402 - after the line above
import json  # noqa: E402
import math  # noqa: E402
import statistics  # noqa: E402
from importlib import metadata  # noqa: E402
from typing import Any  # noqa: E402

import yaml  # noqa: E402

from roost.api.plans.plan import make_plan  # noqa: E402
from roost.facts.stage import DENOISING  # noqa: E402
from roost.plan import PlanDocument  # noqa: E402

POINTS = Path(__file__).with_suffix(".yaml")
GROUPS = ("dit", "text_encoder", "image_encoder", "vae")
STRATEGIES = {
    "resident": dict.fromkeys(GROUPS, "resident"),
    "model-offload": dict.fromkeys(GROUPS, "component-offload"),
    "streamed": {**dict.fromkeys(GROUPS, "component-offload"), "dit": "layerwise-offload,resident_blocks=0"},
}
USES = ("fit", "held", "tuning", "unseen")
PEAKS = ("allocated", "reserved", "process")
GIB = 1024**3
LEVELS = ("low", "mid", "high")


def plan_of(point: dict[str, Any]) -> PlanDocument:
    """The plan of the point's placement; what the search chooses where the source has one of its own."""
    options = {"gpu": point["gpu"], "ram": "256GiB", "measured": False, **point["options"]}
    if strategies := STRATEGIES.get(point["placement"]):
        groups = [group for group in GROUPS if group != "image_encoder" or "i2v" in point["model"]]
        settings = {"vae": f",{point['vae']}"} if "vae" in point else {}
        options["set"] = [f"{group}={strategies[group]}{settings.get(group, '')}" for group in groups]
    plan = make_plan(point["model"], **options)
    assert plan.fits, f"{point['id']} has no plan: the point can't be compared"
    return plan


def seconds_of(point: dict[str, Any], plan: PlanDocument) -> dict[str, float]:
    """What the plan predicts of what the point covers."""
    predicted = plan.predicted
    assert predicted is not None
    interval = predicted.next_s if point["covers"] == "generation" else predicted.step_s
    factor = {"generation": 1.0, "denoise": plan.workload.steps, "step": 1.0}.get(point["covers"])
    return {level: getattr(interval, level) * (factor or 1 / passes_of_a_step(plan)) for level in LEVELS}


def passes_of_a_step(plan: PlanDocument) -> float:
    assert plan.predicted is not None
    assert plan.trace is not None
    denoisers = {stage.component for stage in plan.predicted.stages if stage.phase in DENOISING}
    return sum(use.calls for use in plan.trace.uses if use.component in denoisers) / plan.workload.steps


def peaks_of(plan: PlanDocument, kind: str) -> dict[str, float]:
    """GiB of what the source counted; from tensors the process's context, which torch doesn't count, is taken off."""
    assert plan.predicted is not None
    assert plan.arithmetic is not None
    predicted = plan.predicted
    intervals = dict(zip(PEAKS, (predicted.peak_bytes, predicted.reserved_bytes, predicted.process_bytes), strict=True))
    context = plan.arithmetic.context_bytes if kind == "allocated" else 0
    peaks = {level: (getattr(intervals[kind], level) - context) / GIB for level in LEVELS}
    return peaks if kind == "allocated" else {**peaks, "high": peaks["high"] + predicted.kept_bytes / GIB}


def compared(predicted: dict[str, float], published: float) -> dict[str, float | bool]:
    return {
        **predicted,
        "published": published,
        "ratio": predicted["mid"] / published,
        "within": predicted["low"] <= published <= predicted["high"],
        "under": published <= predicted["high"],
    }


def row_of(point: dict[str, Any]) -> dict[str, Any]:
    plan = plan_of(point)
    row = {name: point[name] for name in ("id", "model", "gpu", "placement", "group", "use")}
    if "seconds" in point:
        row |= {"covers": point["covers"], "seconds": compared(seconds_of(point, plan), point["seconds"])}
    if "peak_gib" in point:
        row |= {"peak_gib": compared(peaks_of(plan, point["peak"]), point["peak_gib"]), "peak": point["peak"]}
    return row


def summary_of(found: list[dict[str, Any]]) -> dict[str, float]:
    """Errors are of the larger of ratio and its inverse, less one: their median and their geometric mean.

    The mean moves with every point, the median only when points change places: neither is enough alone.
    """
    apart = [abs(math.log(each["ratio"])) for each in found]
    return {
        "points": len(found),
        "median_error": math.expm1(statistics.median(apart)),
        "mean_error": math.expm1(statistics.fmean(apart)),
        "median_ratio": statistics.median(each["ratio"] for each in found),
        "within_interval": sum(each["within"] for each in found) / len(found),
        "under_upper_end": sum(each["under"] for each in found) / len(found),
        "median_high_over_mid": statistics.median(each["high"] / each["mid"] for each in found),
    }


def summaries_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    found = {}
    for use in USES:
        of_use = [row for row in rows if row["use"] == use]
        timed = [row for row in of_use if "seconds" in row]
        if timed:
            found[f"{use} seconds"] = summary_of([row["seconds"] for row in timed])
        for group in sorted({row["group"] for row in timed}):
            found[f"{use} seconds, {group}"] = summary_of([row["seconds"] for row in timed if row["group"] == group])
        if peaks := [row["peak_gib"] for row in of_use if "peak_gib" in row]:
            found[f"{use} peaks"] = summary_of(peaks)
    return found


def markdown(rows: list[dict[str, Any]], summaries: dict[str, dict[str, float]], versions: str) -> str:
    lines = [
        "# Predictions against timings published by others",
        "",
        "None of the published figures was measured by this project.",
        f"Written by `benchmarks/published.py` on {versions}.",
        "Sources and assumptions of every point are in `benchmarks/published.yaml`. `fit` points chose the priors of",
        "`planner/cost/data_sheet_rates.py`, `held` points",
        "did not, but were seen while variants were compared. `tuning` and `unseen` points were split by source before",
        "anything was predicted for them. No mid prior was changed after the `unseen` ones were first compared; the",
        "lower ends of attention's rates were then moved nearer, and the upper ends of `reserved` and `process` peaks",
        "got what a caching allocator keeps where it has room, by a simulation that has no number to choose.",
        "",
        "| what | points | median error | mean error | median ratio | within interval | under upper end | high ÷ mid |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in summaries.items():
        errors = f"{each['median_error']:.1%} | {each['mean_error']:.1%} | {each['median_ratio']:.2f}"
        shares = f"{each['within_interval']:.0%} | {each['under_upper_end']:.0%} | {each['median_high_over_mid']:.2f}"
        lines.append(f"| {name} | {each['points']} | {errors} | {shares} |")
    lines += ["", "| point | use | covers | predicted low, mid, high | published | ratio |", "| --- " * 6 + "|"]
    for row in rows:
        for key, unit in (("seconds", "s"), ("peak_gib", "GiB")):
            if key in row:
                covers = row["covers"] if key == "seconds" else f"peak, {row['peak']}"
                lines.append(table_line(row, covers, row[key], unit))
    return "\n".join(lines) + "\n"


def table_line(row: dict[str, Any], covers: str, figures: dict[str, float], unit: str) -> str:
    ends = ", ".join(f"{figures[level]:.4g}" for level in LEVELS)
    mark = "" if figures["within"] else " (outside)"
    published = f"{figures['published']:g} {unit}"
    return f"| {row['id']} | {row['use']} | {covers} | {ends} {unit} | {published} | {figures['ratio']:.2f}{mark} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "results" / "published.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="result file (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="points whose id begins with this")
    options = parser.parse_args()
    rows = []
    for point in yaml.safe_load(POINTS.read_text(encoding="utf-8"))["points"]:
        if not point["id"].startswith(options.only):
            continue
        rows.append(row_of(point))
        print(f"compared {point['id']}", file=sys.stderr)
    versions = {library: metadata.version(library) for library in ("torch", "diffusers", "transformers")}
    summaries = summaries_of(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({**versions, "summaries": summaries, "points": rows}, indent=2) + "\n")
    named = ", ".join(f"{library} {version}" for library, version in versions.items())
    page = markdown(rows, summaries, named)
    options.output.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
