"""Commands ended at random moments, by SIGKILL, SIGINT, SIGTERM or SIGHUP: nothing is torn, left over or orphaned.

    python benchmarks/campaigns/endings.py kills --count 300
    python benchmarks/campaigns/endings.py signals --count 200

After each, every file that is there is whole, the next command removes what is temporary (after a signal there is
nothing), no process is left, and now and then the command that was ended is run again, to its end.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from random import Random

from sandbox import MACHINE, WORKLOAD, Sandbox, Summary, check_ended

COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("run", "../plan.yaml", "--prompt", "a fox", "--seed", "1", "--seed", "2", "-o", "fox.png"),
    "run a model": (
        "run",
        "../model",
        *MACHINE,
        *WORKLOAD,
        "--prompt",
        "a fox",
        "-o",
        "one.png",
        "--trace-out",
        "t.json",
    ),
    "plan": ("plan", "../model", *MACHINE, "--size", "64x80", "--steps", "3", "-o", "other.yaml"),
    "timeline": ("timeline", "../plan.yaml", "-o", "timeline.html"),
    "profiles import": ("profiles", "import", "../profiles.json"),
    "model-dir": ("model-dir", "sdxl", "sdxl", "--sparse"),
    "bench": (
        "bench",
        "../plan.yaml",
        "--strategies",
        "search",
        "--rounds",
        "1",
        "--trial-steps",
        "1",
        "-o",
        "results.json",
    ),
    "plan --tune": ("plan", "../model", *MACHINE, *WORKLOAD, "--tune", "--tune-seconds", "30", "-o", "tuned.yaml"),
}
# Trials are processes that import the libraries themselves: these take seconds, the others less than one.
SLOW = ("bench", "plan --tune")
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
AGAIN_EVERY = 10


def clear(sandbox: Sandbox) -> None:
    """What would make a command shorter the next time."""
    for path in sandbox.work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder in (
        sandbox.root / "xdg_cache_home" / "roost" / "traces",
        sandbox.root / "xdg_state_home" / "roost" / "bench",
    ):
        shutil.rmtree(folder, ignore_errors=True)


def torn_files(sandbox: Sandbox) -> list[str]:
    """Files that are there and not whole, temporary ones aside."""
    from PIL import Image

    from roost.plan import read_plan
    from roost.plan.measurements import MeasuredEntry
    from roost.plan.strict_yaml import validated, yaml_mapping

    readers = {
        ".yaml": lambda path: (
            validated(yaml_mapping(path.read_bytes(), "store"), MeasuredEntry, "entry")
            if "measured" in path.parts
            else read_plan(path)
        ),
        ".json": lambda path: json.loads(path.read_text()),
        ".png": lambda path: Image.open(path).load(),
        ".html": lambda path: path.read_text().rstrip().endswith("</html>") or 1 / 0,
    }
    torn = []
    places = (sandbox.work, *(sandbox.root / f"xdg_{kind}_home" for kind in ("cache", "data", "state")))
    for path in (path for place in places for path in place.rglob("*") if path.is_file()):
        if ".roost-tmp" in path.name or "sdxl" in path.relative_to(sandbox.root).parts or path.suffix not in readers:
            continue
        try:
            readers[path.suffix](path)
        except Exception as error:
            torn.append(f"{path.relative_to(sandbox.root)}: {type(error).__name__} {str(error)[:100]}")
    return torn


def durations(sandbox: Sandbox, summary: Summary, names: list[str]) -> dict[str, float]:
    """How long each command takes when nothing ends it."""
    made = sandbox.run(["profiles", "export", "-o", "../profiles.json"])
    found = {}
    for name in names:
        clear(sandbox)
        ended = sandbox.run(COMMANDS[name])
        if ended.code != 0:
            summary.fail(f"{name}, whole: {ended.code} {ended.err[-300:]} (export: {made.code})")
        found[name] = ended.seconds
    return found


def end_one(sandbox: Sandbox, summary: Summary, name: str, delay_s: float, by: str) -> bool:
    """Ends the command at that moment; whether it had not ended by itself before."""
    clear(sandbox)
    began_s = time.monotonic()
    pid = sandbox.start(COMMANDS[name])
    time.sleep(delay_s)
    os.kill(pid, getattr(signal, by))
    ended = sandbox.wait(pid, began_s)
    what = f"{name} after {delay_s:.3f} s by {by}"
    summary.tally[f"{name}: {ended.code}"] += 1
    expected = {-signal.SIGKILL} if by == "SIGKILL" else {SIGNALS[by], -getattr(signal, by)}
    problem = check_ended(ended, expected | {0})
    if problem:
        summary.fail(f"{what}: {problem}")
    orphans = sandbox.orphans()
    if orphans:
        summary.fail(f"{what}: {len(orphans)} processes were left")
    if by != "SIGKILL" and sandbox.temporary():
        summary.fail(f"{what}: left {sandbox.temporary()}")
    after = sandbox.run(["gpus"])
    if after.code or sandbox.temporary():
        summary.fail(f"{what}: the next command ended with {after.code} and left {sandbox.temporary()}")
    for torn in torn_files(sandbox):
        summary.fail(f"{what}: {torn}")
    return ended.code != 0


def again(sandbox: Sandbox, summary: Summary, name: str) -> None:
    ended = sandbox.run(COMMANDS[name])
    if ended.code:
        summary.fail(f"{name} again: {ended.code} {ended.err[-300:]}")
    if torn_files(sandbox) or sandbox.temporary():
        summary.fail(f"{name} again: {torn_files(sandbox)} {sandbox.temporary()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("kills", "signals"))
    parser.add_argument("--count", type=int, default=None, help="how many (default: 300 kills, 200 signals)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="leave out what starts processes of its own")
    given = parser.parse_args()
    count = given.count or (300 if given.what == "kills" else 200)
    summary, chance = Summary(campaign=given.what, count=count, seed=given.seed), Random(given.seed)
    fast = [name for name in COMMANDS if name not in SLOW]
    with Sandbox() as sandbox:
        seconds = durations(sandbox, summary, fast if given.fast else list(COMMANDS))
        for number in range(count):
            name = chance.choice(SLOW) if number % 5 == 4 and not given.fast else chance.choice(fast)
            by = "SIGKILL" if given.what == "kills" else chance.choice(list(SIGNALS))
            was_ended = end_one(sandbox, summary, name, chance.uniform(0, seconds[name] * 1.05), by)
            if was_ended and number % AGAIN_EVERY == 0:
                again(sandbox, summary, name)
        summary.figures["seconds_whole"] = {name: round(each, 2) for name, each in seconds.items()}
    return summary.write()


if __name__ == "__main__":
    sys.exit(main())
