"""All that is measured on a GPU: a ranked list of items, each with its time, resumed where the last call stopped.

    python benchmarks/gpu/suite.py [--minutes 9.5] [--device cuda|emulated|simulated] [--only ITEM …] [--results DIR]

An item is one command that writes one JSON file; a file that is there is not measured again (delete it to do so). A
call starts no item that can't end within its minutes. Emulated and simulated, the same items run on a small model: that
tries the suite and measures no hardware; simulated, by the commands that a GPU gets (tests/simulated_gpu). Afterwards
the tables are written anew from all files (``tables.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from items import Item, items_for
from tables import write_tables

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STARTING_S = 10.0


@dataclass(frozen=True)
class Outcome:
    """How one item ended: ``done``, ``known`` from before, ``no time``, or why it ``failed``."""

    item: Item
    what: str
    seconds: float = 0.0
    reason: str = ""


def run_items(items: list[Item], results: Path, minutes: float) -> list[Outcome]:
    """Runs what is not known yet, in order, while there is time."""
    ends_s = time.monotonic() + 60 * minutes
    outcomes = []
    for item in items:
        left_s = ends_s - time.monotonic()
        if (results / f"{item.name}.json").exists():
            outcomes.append(Outcome(item, "known"))
        elif 60 * item.minutes > left_s:
            outcomes.append(Outcome(item, "no time"))
        else:
            outcomes.append(run_item(item, results))
        print(f"{item.name:22} {outcomes[-1].what} {outcomes[-1].seconds:6.0f} s  {outcomes[-1].reason}", flush=True)
    return outcomes


def run_item(item: Item, results: Path) -> Outcome:
    """One item in a process group of its own, ended when its time is over; a failure leaves only its log."""
    output, log = results / f"{item.name}.json", results / f"{item.name}.log"
    unfinished = output.with_suffix(".part.json")
    unfinished.unlink(missing_ok=True)
    command = [sys.executable, *item.command, "-o", str(unfinished)]
    began_s = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        )
        try:
            code = process.wait(60 * item.minutes + STARTING_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process)
    seconds = time.monotonic() - began_s
    if not unfinished.exists():
        reason = f"more than its {item.minutes:g} minutes" if code is None else f"exit code {code}"
        return Outcome(item, "failed", seconds, f"{reason}: {last_line(log)}")
    # Results say nothing of where they were made.
    unfinished.write_text(unfinished.read_text().replace(f"{ROOT}{os.sep}", ""))
    unfinished.replace(output)  # also of a command that says by its exit code that something in the file is bad
    return Outcome(item, "done", seconds, "" if code == 0 else f"exit code {code}")


def environment() -> dict[str, str]:
    """The checkout's own package, also where it is not installed; nothing from a network."""
    path = os.pathsep.join(each for each in (str(ROOT / "src"), os.environ.get("PYTHONPATH")) if each)
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}


def end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "emulated", "simulated"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.5, help="time for this call")
    parser.add_argument("--only", nargs="+", metavar="ITEM", help="these items alone")
    parser.add_argument("--results", type=Path, metavar="DIR")
    options = parser.parse_args()
    results = (options.results or ROOT / "benchmarks" / "results" / f"gpu-{options.device}").resolve()
    results.mkdir(parents=True, exist_ok=True)
    items = items_for(options.device)
    unknown = set(options.only or ()) - {item.name for item in items}
    if unknown:
        parser.error(f"no item {', '.join(sorted(unknown))}; there are {', '.join(item.name for item in items)}")
    chosen = [item for item in items if not options.only or item.name in options.only]
    outcomes = run_items(chosen, results, options.minutes)
    print(f"tables: {write_tables(results)}")
    return 1 if any(outcome.what == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
