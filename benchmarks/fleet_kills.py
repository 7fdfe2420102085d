"""Workers of fleets on Ray killed at random moments, whatever they do: nothing is lost, and every output has its bits.

    python benchmarks/fleet_kills.py --kills 100

A round runs a list of prompts on a cluster of its own, and ends its workers by SIGKILL, each chosen by chance, at
moments of chance, until the command ends. Where it failed, as when a worker is lost three times before it is up again
and no other does its work, the same command goes on, and workers go on being killed. In the end each output is compared
with that of one process. Stopped, the campaign goes on after the rounds that its results hold. Needs Ray:
pip install 'roost[fleet]'.
"""

from __future__ import annotations

import sys

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
del sys.path[0]
from pathlib import Path  # noqa: E402 - after the line above

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "fleet_kills.json"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import suppress  # noqa: E402
from importlib import metadata  # noqa: E402
from random import Random  # noqa: E402
from typing import Any  # noqa: E402

import psutil  # noqa: E402

from tiny_models import build  # noqa: E402

LAYOUTS = {"roles": "3 x emulated", "replicas": "2 x emulated"}
CARD = ("--vram", "64MiB", "--ram", "16GiB", "--headroom", "0", "--size", "64x64", "--steps", "2")
PROMPTS = 120
BETWEEN_S = 7.0  # kills, on average
LOADS_S = 8.0  # a worker, about
MOST_RUNS = 30  # of a command, until it is through
LEFT_S = 20.0  # for a run's processes to end after it
ACTOR = "ray::WorkerActor"


def roost(*words: str) -> list[str]:
    return [sys.executable, "-m", "roost", *words]


def planned(folder: Path) -> Path:
    """The model, its plans, the prompts; and the record of one process's run."""
    build("sdxl", folder / "model")
    (folder / "prompts.txt").write_text("\n".join(f"fox number {number}" for number in range(PROMPTS)))
    alone = ("--gpu", "emulated", "--policy", "rules", *CARD, "-o", str(folder / "alone.yaml"))
    subprocess.run(roost("plan", str(folder / "model"), *alone), check=True, capture_output=True)
    for layout, fleet in LAYOUTS.items():
        several = ("--fleet", fleet, "--layout", layout, *CARD, "-o", str(folder / f"{layout}.yaml"))
        subprocess.run(roost("plan", str(folder / "model"), *several), check=True, capture_output=True)
    words = run_words(folder, "alone", folder / "alone")
    (folder / "alone.json").write_text(subprocess.run(roost(*words), check=True, capture_output=True, text=True).stdout)
    return folder


def run_words(folder: Path, plan: str, outputs: Path) -> tuple[str, ...]:
    outputs.mkdir(exist_ok=True)
    prompts = ("--prompts", str(folder / "prompts.txt"), "-o", str(outputs / "fox.png"))
    return "run", str(folder / f"{plan}.yaml"), *prompts, "--json"


def workers_of(pid: int) -> Iterator[psutil.Process]:
    """The workers' processes of a run."""
    for each in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            if " ".join(each.cmdline()).startswith(ACTOR):
                yield each


def run_killing(words: tuple[str, ...], folder: Path, chance: Random) -> dict[str, Any]:
    """One run of a command, with kills until it ends."""
    began_s, ages_s = time.monotonic(), []
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        child = subprocess.Popen(roost(*words, "--on", "ray"), stdout=out, stderr=err)
    family = set()
    due_s = time.monotonic() + chance.expovariate(1 / BETWEEN_S)
    while child.poll() is None:
        time.sleep(0.02)
        if time.monotonic() < due_s:
            continue
        try:
            family |= set(psutil.Process(child.pid).children(recursive=True))
            there = list(workers_of(child.pid))
            if there:
                victim = chance.choice(there)
                victim.send_signal(signal.SIGKILL)
                ages_s.append(round(time.time() - victim.create_time(), 1))
        except psutil.NoSuchProcess:
            continue
        due_s = time.monotonic() + chance.expovariate(1 / BETWEEN_S)
    said = (folder / "stderr").read_text().splitlines()
    left = psutil.wait_procs(family, LEFT_S)[1]
    return {
        "code": child.returncode,
        "seconds": round(time.monotonic() - began_s, 1),
        "killed_after_s": ages_s,
        "restarts_told": sum("is started again" in each for each in said),
        "given_up_told": sum("is given up" in each or " times in a row, " in each for each in said),
        "requests_failed_told": sum(" failed: " in each for each in said),
        "processes_left": len(left),
        "error": next((each for each in said if each.startswith("error: ")), None),
    }


def finished(outputs: Path) -> dict[str, bytes]:
    """The content of the outputs that the journal has, by name."""
    journal = outputs / "fox.journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines() if line] if journal.exists() else []
    return {name: (outputs / name).read_bytes() for line in lines for name in line["files"]}


def one_round(folder: Path, number: int, layout: str) -> dict[str, Any]:
    chance, outputs = Random(f"fleet kills {number}"), folder / f"round-{number}"
    words, runs, lost = run_words(folder, layout, outputs), [], 0
    before: dict[str, bytes] = {}
    while len(runs) < MOST_RUNS and (not runs or runs[-1]["code"] != 0):
        runs.append(run_killing(words, folder, chance))
        now = finished(outputs)
        lost += sum(now.get(name) != content for name, content in before.items())
        before = now
    alone = json.loads((folder / "alone.json").read_text())["generations"]
    made = json.loads((folder / "stdout").read_text())["generations"] if runs[-1]["code"] == 0 else []
    right = [
        ours["digest"] == theirs["digest"]
        and Path(ours["output"][0]).read_bytes() == Path(theirs["output"][0]).read_bytes()
        for ours, theirs in zip(made, alone, strict=False)
    ]
    return {
        "layout": layout,
        "outputs": PROMPTS,
        "outputs_right": sum(right),
        "finished_outputs_lost": lost,
        "kills": sum(len(each["killed_after_s"]) for each in runs),
        "runs": runs,
    }


def totals(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    runs = [run for each in rounds for run in each["runs"]]
    return {
        "kills": sum(each["kills"] for each in rounds),
        "killed_as_they_loaded": sum(age_s < LOADS_S for run in runs for age_s in run["killed_after_s"]),
        "restarts_told": sum(run["restarts_told"] for run in runs),
        "runs": len(runs),
        "runs_that_failed": sum(run["code"] != 0 for run in runs),
        "outputs": sum(each["outputs"] for each in rounds),
        "outputs_right": sum(each["outputs_right"] for each in rounds),
        "finished_outputs_lost": sum(each["finished_outputs_lost"] for each in rounds),
        "requests_failed_told": sum(run["requests_failed_told"] for run in runs),
        "processes_left": sum(run["processes_left"] for run in runs),
    }


def write(path: Path, rounds: list[dict[str, Any]]) -> None:
    found = totals(rounds)
    versions = {each: metadata.version(each) for each in ("ray", "torch", "diffusers")}
    where = {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version(), **versions}
    path.write_text(json.dumps({"where": where, "totals": found, "rounds": rounds}, indent=1) + "\n")
    lines = [
        "# Workers killed",
        "",
        f"Emulated devices on {where['cpus']} CPU cores, Ray {versions['ray']}; tiny SDXL, {PROMPTS} pictures a round.",
        f"Workers' processes ended by SIGKILL, one every {BETWEEN_S:.0f} s on average: {found['kills']} in all,"
        f" {found['killed_as_they_loaded']} of them less than {LOADS_S:.0f} s after their start, which is about what"
        " loading takes here.",
        "",
        "| layout | rounds | kills | runs | of them failed | outputs | right bits | finished ones lost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for layout in LAYOUTS:
        some = totals(mine := [each for each in rounds if each["layout"] == layout])
        cells = (some[each] for each in ("kills", "runs", "runs_that_failed", "outputs", "outputs_right"))
        lines.append(f"| {layout} | {len(mine)} | {' | '.join(map(str, cells))} | {some['finished_outputs_lost']} |")
    lines += [
        "",
        "A run ended where a worker was killed three times in a row before it was up again, and nobody else did its"
        f" work; {found['requests_failed_told']} requests failed since their workers were killed three times. The same"
        " command went on."
        f" Processes left {LEFT_S:.0f} s after runs: {found['processes_left']}.",
    ]
    path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    rounds = json.loads(given.results.read_text())["rounds"] if given.results.exists() else []
    with tempfile.TemporaryDirectory(prefix="fleet-kills-") as name:
        folder = planned(Path(name))
        while sum(each["kills"] for each in rounds) < given.kills:
            layout = list(LAYOUTS)[len(rounds) % len(LAYOUTS)]
            rounds.append(one_round(folder, len(rounds), layout))
            write(given.results, rounds)
            print(json.dumps({**rounds[-1], "runs": len(rounds[-1]["runs"])}), flush=True)
    found = totals(rounds)
    print(json.dumps(found))
    return int(found["outputs_right"] < found["outputs"] or bool(found["finished_outputs_lost"]))


if __name__ == "__main__":
    sys.exit(main())
