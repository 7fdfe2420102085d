"""What ``roost run`` shows: the record of a run beside its prediction, or what a dry run would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from roost.api.requests.request import steps_text
from roost.cli.screen import show_folded, show_json, show_note, show_table, show_text
from roost.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from roost.api.measurements.run_records import LoraRecord, RunRecord, WorkerRunRecord
    from roost.api.requests.inputs import InputRecord
    from roost.api.requests.request import PlannedGeneration, RunRequest
    from roost.api.runs.groups import GroupChoice
    from roost.api.runs.ready import ReadyPlan
    from roost.plan import PlanDocument


def show_record(ready: ReadyPlan, record: RunRecord, *, as_json: bool) -> None:
    if as_json:
        show_json(asdict(record))
        return
    count = len(record.generations)
    if all(each.skipped for each in record.generations):
        show_text(f"{count} generations: all were there already, so nothing was loaded")
    else:
        _show_work(ready, record)
    for each in record.generations:
        if count > 1:
            took = "was there" if each.skipped else format_seconds(each.seconds)
            show_text(f"seed {each.seed}, {took}: {_shortened(each.prompt)}")
        show_text(f"digest {each.digest}")
        for path in each.output:
            show_text(f"saved {path}")
    if record.compared is not None:
        show_compared(record.compared, emulated=record.device_kind == "emulated")


def _show_work(ready: ReadyPlan, record: RunRecord) -> None:
    where = "the emulated GPU (the CPU)" if ready.device_kind == "emulated" else ready.plan.machine.gpu.name
    made = sum(not each.skipped for each in record.generations)
    what = "generated" if len(record.generations) == 1 else f"{made} of {len(record.generations)} generations"
    show_text(f"on {where}: loaded in {format_seconds(record.load_s)}, {what} in {format_seconds(record.seconds)}")
    show_table(
        ("Stage", "Component", "Time", "Peak"),
        [
            (each.name, each.component, format_seconds(each.seconds), format_bytes(each.peak_bytes))
            for each in record.stages
        ],
        numbers=(2, 3),
    )
    _show_inputs(record.pictures)
    for lora in record.loras:
        show_text(f"{lora.path} × {lora.scale:g}: {_where(lora)}")
    if record.texts is not None:
        why_not = record.texts.why_not
        took = f"first, in {format_seconds(record.texts.seconds)}" if why_not is None else f"with each: {why_not}"
        show_text(f"texts encoded {took}")
    for warning in (*record.disturbances, *record.warnings):
        show_folded(f"warning: {warning}")
    if record.workers:
        _show_workers(record.workers)
    else:
        show_text(f"peak {format_bytes(record.peak_bytes)} of a budget of {format_bytes(ready.budget_bytes)}")


def _show_workers(workers: Sequence[WorkerRunRecord]) -> None:
    """Of a fleet, what each worker had and did."""
    show_table(
        ("Worker", "Components", "Visits", "Restarts", "Peak", "Host peak"),
        [
            (
                each.name,
                ", ".join(each.components),
                each.requests,
                each.restarts,
                format_bytes(each.peak_bytes),
                format_bytes(each.host_peak_bytes),
            )
            for each in workers
        ],
        numbers=(2, 3, 4, 5),
    )


def _where(lora: LoraRecord) -> str:
    fused = [each for each in lora.components if each not in lora.beside]
    return ", ".join(
        f"{how} {' and '.join(names)}" for how, names in (("fused into", fused), ("beside", lora.beside)) if names
    )


def _show_inputs(inputs: Sequence[InputRecord]) -> None:
    """Of each video, how much of it is used."""
    for each in inputs:
        if each.frames is not None:
            show_text(f"took {each.frames} frame{'s' * (each.frames != 1)} of {each.path} as {each.argument}")


def _shortened(prompt: str, most: int = 50) -> str:
    return prompt if len(prompt) <= most else f"{prompt[: most - 1]}…"


def show_dry_run(ready: ReadyPlan, request: RunRequest, *, as_json: bool, fleet: PlanDocument | None = None) -> None:
    """What a run would do; ``fleet`` is the document of several workers, of which ``ready`` has the whole plan."""
    from roost.api.requests.request import generations_of
    from roost.api.runs.call import check_call
    from roost.api.runs.made import group_warnings
    from roost.cli.views.fleet import show_fleet
    from roost.cli.views.plan_details import show_plan_details

    checked, generations = check_call(ready, request), generations_of(request)
    wanted, changes = checked.workload, [*ready.changes, *checked.beyond, *group_warnings(generations)]
    if as_json:
        show_json(
            {
                "schema": 1,
                "device_kind": ready.device_kind,
                "budget_bytes": ready.budget_bytes,
                "workload": asdict(wanted),
                "seed": request.seeds[0],
                "output": None if request.output is None else str(request.output),
                "changes": changes,
                "workers": [] if fleet is None else [each.name for each in fleet.workers],
                "pictures": [asdict(each) for each in checked.pictures],
                "generations": [
                    {"prompt": each.prompt, "seed": each.seed, "output": _file(each), "batch_of": each.batch_of}
                    for each in generations
                ],
            }
        )
        return
    if fleet is None:
        show_plan_details(ready.plan)
    else:
        show_fleet(fleet)
    frames = f" × {wanted.frames} frames" if wanted.frames else ""
    count = f"{len(generations)} generations" if len(generations) > 1 else f"seed {request.seeds[0]}"
    within = f"within {format_bytes(ready.budget_bytes)}" if fleet is None else f"by {len(fleet.workers)} workers"
    show_text(
        f"would run {wanted.width}×{wanted.height}{frames}, {steps_text(wanted)}, {count}, on"
        f" {ready.device_kind} {within}, and write"
        f" {_file(generations[0]) or 'no file'}{' and so on' if request.output and len(generations) > 1 else ''}"
    )
    _show_inputs(checked.pictures)
    for change in changes:
        show_text(f"change: {change}")


def _file(generation: PlannedGeneration) -> str | None:
    return None if generation.output is None else str(generation.output)


# Which group of prompts ``--batch auto`` took.


def show_group(choice: GroupChoice) -> None:
    """One line on stderr: the group, seconds an output in each that surely fits, and the first that may not."""
    taken = f"--batch auto: groups of {choice.size}" if choice.size > 1 else "--batch auto: one prompt a call"
    seconds = ", ".join(f"{size}: {format_seconds(each)}" for size, each in choice.output_s.items())
    predicted = f"predicted for each output, by group: {seconds}" if seconds else "nothing surely fits"
    beyond = f"; {choice.too_large} may not fit" if choice.too_large is not None and seconds else ""
    show_note(f"{taken} ({predicted}{beyond})")


# How a prediction looks beside what was measured.


_SECONDS = {"load_s": "load", "first_s": "first generation", "next_s": "next generation", "step_s": "a step"}


def show_compared(compared: Mapping[str, Any], *, emulated: bool) -> None:
    """One row for each figure that was both predicted and measured, and what becomes of it."""
    rows = [
        _row(words, compared[name], format_seconds, compared[name])
        for name, words in _SECONDS.items()
        if compared[name] is not None
    ]
    for stage in compared["stages"]:
        pair = {"predicted": stage["predicted_peak_bytes"], "measured": stage["measured_peak_bytes"]}
        rows.append(_row(f"peak in {stage['name']}", pair, format_bytes))
    show_table(("Compared", "Predicted", "Between", "Measured", "Ratio"), rows, numbers=(1, 3, 4))
    if emulated:
        show_folded("emulated: peaks compare as on a GPU; how fast this CPU is, only runs can tell the next plan")
    if compared["kept"]:
        show_text("kept: the next plan of this model on this device uses it (roost profiles)")
    else:
        show_folded(f"not kept for the next plan: {compared['why_not']}")


def _row(
    words: str, pair: Mapping[str, Any], shown: Callable[[Any], str], ends: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    between = f"{shown(ends['low'])} to {shown(ends['high'])}" if ends else ""
    ratio = f"{pair['measured'] / pair['predicted']:.2f}" if pair["predicted"] else "–"
    return words, shown(pair["predicted"]), between, shown(pair["measured"]), ratio
