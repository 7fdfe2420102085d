"""How long a dry run takes, and its memory: Wan2.2-A14B 1280x720x81 and FLUX.1-dev 1024x1024 at their default steps.

    python benchmarks/dry_run.py [-o benchmarks/results/dry_run.json]

Each round is a fresh process on sparse files of the real sizes; its imports are not counted. Then whole processes that
find the trace in the cache.
"""

import sys
from pathlib import Path

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import argparse  # noqa: E402 - after the line above
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from importlib import metadata  # noqa: E402

ROUNDS, CACHED_ROUNDS = 5, 7
# repository name -> (claimed seconds of a dry run, of a whole process from the cache)
MODELS = {"wan2.2-t2v-a14b": (8.0, 0.5), "flux.1-dev": (4.0, 0.5)}
MAX_RSS_BYTES = 3 * 1000**3


def trace_cold(directory: str) -> dict[str, float]:
    """One dry run in this process, whose imports are done before the clock starts."""
    from roost.api.models.inspect import inspect_model, profile_of
    from roost.pipelines.classes import component_class, pipeline_class
    from roost.probes.dry_run import DryRunOptions, dry_run, pipeline_call  # noqa: F401 - imported for its imports
    from roost.profiles.class_facts import load_class_facts

    inventory = inspect_model(directory)
    profile = profile_of(inventory)
    pipeline_class(inventory.pipeline or "")
    for component in inventory.components:
        component_class(component.library, component.class_name)
    options = DryRunOptions(guidance_argument=profile.guidance_argument)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    trace = dry_run(Path(directory), inventory, profile.workload, load_class_facts(), options)
    return {
        "seconds": time.perf_counter() - began_s,
        "cpu_s": time.process_time() - began_cpu_s,
        "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "tflop": sum(use.flops for use in trace.ordered_uses()) / 1e12,
        "entry_calls": sum(count for _, count in trace.sequence),
    }


def trace_cached(directory: str) -> dict[str, float]:
    """What a plan needs of a trace that is in the cache."""
    from roost.api.models.inspect import inspect_model, profile_of
    from roost.api.models.traces import trace_model

    inventory = inspect_model(directory)
    profile = profile_of(inventory)
    trace = trace_model(inventory, profile, profile.workload)
    return {"uses": len(trace.uses), "imported_torch": "torch" in sys.modules}


def run_child(what: str, directory: Path, cache: Path) -> tuple[dict[str, float], float]:
    """The child's figures and the seconds of its whole process."""
    # -P, because a neighbour of this script is called like the standard library's inspect.
    command = [sys.executable, "-P", __file__, "--child", what, str(directory)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    began_s = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, text=True)
    return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - began_s


def measure(name: str, folder: Path) -> dict[str, object]:
    from roost.api.models.published import write_model_directory

    directory, cache = folder / name, folder / "cache"
    write_model_directory(name, directory, sparse=True)
    cold = [run_child("cold", directory, cache)[0] for _ in range(ROUNDS)]
    run_child("cached", directory, cache)  # fills the cache
    cached = [run_child("cached", directory, cache) for _ in range(CACHED_ROUNDS)]
    return {
        "cold": cold,
        "cold_median_s": statistics.median(each["seconds"] for each in cold),
        "cold_fastest_s": min(each["seconds"] for each in cold),
        "max_rss_bytes": max(each["max_rss_bytes"] for each in cold),
        "cached_process_s": [seconds for _, seconds in cached],
        "cached_process_median_s": statistics.median(seconds for _, seconds in cached),
        "cached_imports_torch": any(figures["imported_torch"] for figures, _ in cached),
    }


def claims_of(name: str, figures: dict[str, object]) -> dict[str, dict[str, object]]:
    cold_s, cached_s = MODELS[name]
    limits = {"cold_median_s": cold_s, "cached_process_median_s": cached_s, "max_rss_bytes": MAX_RSS_BYTES}
    return {
        key: {"value": figures[key], "limit": limit, "holds": float(str(figures[key])) <= limit}
        for key, limit in limits.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "results" / "dry_run.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="result file (default: %(default)s)")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "DIRECTORY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, directory = options.child
        print(json.dumps(trace_cold(directory) if what == "cold" else trace_cached(directory)))
        return 0
    result: dict[str, object] = {"cpu_cores": os.cpu_count(), "python": platform.python_version()}
    result |= {library: metadata.version(library) for library in ("torch", "diffusers", "transformers")}
    holds = True
    with tempfile.TemporaryDirectory() as folder:
        result["load_average_before"] = os.getloadavg()[0]
        for name in MODELS:
            figures = measure(name, Path(folder))
            claims = claims_of(name, figures)
            result[name] = {"claims": claims, **figures}
            for key, claim in claims.items():
                print(f"{name:18} {key:24} {claim['value']:14.2f}  {'holds' if claim['holds'] else 'FAILS'}")
            holds = holds and all(claim["holds"] for claim in claims.values())
        result["load_average_after"] = os.getloadavg()[0]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
