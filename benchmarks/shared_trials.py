"""What sharing weights between trials saves: the same trials with and without, on a model of some hundred MB.

    python benchmarks/shared_trials.py [--rounds N] [-o FILE]

Each round runs diffusers alone and three strategies, once sharing and once not, each trial in a process that ends with
it, as on CUDA. Emulated, on this CPU: ready_s is from a process's start to its first generation, with the imports of
the libraries, which sharing can't spare. What the first trial pays for all counts in wall_s; later_… are the others.
Outputs must be the same bits, and load_s and host_peak_bytes, which trials report, much the same. Once with weights
from files, which the page cache has, and once made at random, as those of a model known by its name are.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
sys.path[0] = str(ROOT / "scripts")

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from dataclasses import replace  # noqa: E402
from importlib import metadata  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402

import torch  # noqa: E402

from random_weights import fill_with_random_weights  # noqa: E402
from roost.api.options import PlanOptions  # noqa: E402
from roost.api.planning import search_question  # noqa: E402
from roost.tune.candidates import list_candidates  # noqa: E402
from roost.tune.process import Message  # noqa: E402
from roost.tune.records import Candidate, TrialResult  # noqa: E402
from roost.tune.trials import Trials, TrialWorld, world_of  # noqa: E402
from tiny_wan import WanSize, wan_pipeline  # noqa: E402

SIZE = WanSize(blocks=20, heads=8, head_dim=120, ffn_dim=3840, text_blocks=3, text_dim=64, vae_base_dim=4)
STRATEGIES = ("resident", "snapshot-offload", "layerwise-offload")


def build_model(directory: Path) -> int:
    """Writes a Wan2.1-like model with random weights in bfloat16; its bytes."""
    pipeline = wan_pipeline(SIZE, two_experts=False)
    fill_with_random_weights(pipeline.components)
    pipeline.to(torch.bfloat16).save_pretrained(directory)
    return sum(path.stat().st_size for path in directory.rglob("*.safetensors"))


class Ready:
    """The moment when a trial begins to compute."""

    def __init__(self) -> None:
        self.began_s, self.seconds = time.perf_counter(), 0.0

    def __call__(self, message: Message) -> None:
        if not self.seconds and str(message.get("phase", "")).startswith("in "):
            self.seconds = time.perf_counter() - self.began_s


def run_once(world: TrialWorld, candidates: list[Candidate]) -> dict[str, object]:
    """All candidates once, one after another."""
    began_s, rows = time.perf_counter(), []
    with Trials(world) as trials:
        for each in candidates:
            ready, before_s = Ready(), children_cpu_s()
            result = trials.run(each, on_message=ready)
            rows.append({**row_of(each, result, ready.seconds), "cpu_s": children_cpu_s() - before_s})
        unshared = dict(trials.unshared)
    return {"wall_s": time.perf_counter() - began_s, "trials": rows, "unshared": unshared}


def children_cpu_s() -> float:
    """CPU seconds of all children that have ended: what else the machine does changes them less than wall time."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row_of(candidate: Candidate, result: TrialResult, ready_s: float) -> dict[str, object]:
    return {
        "name": candidate.name,
        "status": result.status,
        "reason": result.reason,
        "ready_s": ready_s,
        "load_s": result.load_s,
        "host_peak_bytes": result.host_peak_bytes,
        "digest": result.digest,
    }


def measure(directory: Path, rounds: int, *, at_random: bool) -> dict[str, object]:
    """The rounds, sharing and not in turns, and what comes of them."""
    options = PlanOptions(gpu="emulated", vram="4GiB", headroom=0, size="64x64", frames=5, steps=2)
    asked = search_question(directory, options)
    entrants = list_candidates(asked, STRATEGIES)
    assert entrants.plain is not None
    by_strategy = {each.strategy: each for each in reversed(entrants.racing)}
    candidates = [entrants.plain, *by_strategy.values()]
    world = replace(world_of(asked, entrants, directory, 2), keep=False, warm_up=False, random_weights=at_random)
    found: dict[str, list[dict[str, object]]] = {"shared": [], "alone": []}
    run_once(world, candidates[:1])  # what the system caches of files and libraries, it has cached by now
    for number in range(rounds):
        for way in ("shared", "alone") if number % 2 == 0 else ("alone", "shared"):
            found[way].append(run_once(replace(world, share=way == "shared"), candidates))
    return {**found, "summary": summary_of(found)}


def summary_of(found: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    rows = {way: [row for each in runs for row in each["trials"]] for way, runs in found.items()}  # type: ignore[attr-defined]
    later = {way: [row for each in runs for row in each["trials"][1:]] for way, runs in found.items()}  # type: ignore[index]
    return {
        "wall_median_s": {way: statistics.median(float(str(each["wall_s"])) for each in found[way]) for way in found},
        "later_ready_median_s": {way: statistics.median(row["ready_s"] for row in later[way]) for way in found},
        "later_cpu_median_s": {way: statistics.median(row["cpu_s"] for row in later[way]) for way in found},
        "later_load_median_s": {way: statistics.median(row["load_s"] for row in later[way]) for way in found},
        "host_peak_median_bytes": {
            way: statistics.median(row["host_peak_bytes"] for row in later[way]) for way in found
        },
        "digests": sorted({row["digest"] for way in rows for row in rows[way]}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    with TemporaryDirectory(prefix="roost-") as folder:
        count = build_model(Path(folder) / "model")
        found = {
            name: measure(Path(folder) / "model", options.rounds, at_random=name == "random")
            for name in ("files", "random")
        }
    record = {
        "device_kind": "emulated",
        "cpu_cores": os.cpu_count(),
        "load_average_before": load_average,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "diffusers", "transformers")},
        "weight_bytes": count,
        **found,
    }
    text = json.dumps(record, indent=1)
    if options.output is not None:
        options.output.write_text(text + "\n")
    print(json.dumps({"weight_bytes": count, **{name: each["summary"] for name, each in found.items()}}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
