"""How long inspecting takes: 100 shards with 20,000 tensors and one file with 200,000, against the floor.

The one file is spelt in four ways: as the safetensors library writes it, with the keys of entries in another order,
with the tensors in another order than their data, and with escapes in names.

    python benchmarks/inspect.py [-o benchmarks/results/inspect.json]

The files are sparse. The floor is what no reader can do without: pread and json.loads of the same headers.
"""

import sys
from pathlib import Path

# This script's name shadows the standard library's inspect module for everything that is imported below.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import argparse  # noqa: E402 - after the line above
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from importlib import metadata  # noqa: E402

SHARDS, TENSORS_PER_SHARD = 100, 200
ROUNDS, PROCESS_ROUNDS = 15, 7
SHAPE = (1024, 1024)
MAX_FLOOR_RATIO, MAX_HELP_S, MAX_INSPECT_S = 3.0, 0.35, 0.8
LARGE_TENSORS, LARGE_ROUNDS, MAX_READER_RATIO = 200_000, 5, 2.5

Measurement = Callable[[], object]


def write_model(root: Path) -> list[Path]:
    """A Wan pipeline's directory with nothing but a sharded transformer; its shards."""
    folder = root / "transformer"
    folder.mkdir(parents=True)
    index = {"_class_name": "WanPipeline", "transformer": ["diffusers", "WanTransformer3DModel"]}
    (root / "model_index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanTransformer3DModel"}))
    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        file_name = f"diffusion_pytorch_model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        names = [f"blocks.{shard}.attn{each // 2}.{'kv'[each % 2]}_proj.weight" for each in range(TENSORS_PER_SHARD)]
        write_shard(folder / file_name, names)
        weight_map.update(dict.fromkeys(names, file_name))
    content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(content, indent=2))
    return sorted(folder.glob("*.safetensors"))


def write_shard(path: Path, names: list[str]) -> None:
    tensor_bytes = 2 * SHAPE[0] * SHAPE[1]
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for position, name in enumerate(names):
        offsets = [position * tensor_bytes, (position + 1) * tensor_bytes]
        entries[name] = {"dtype": "BF16", "shape": SHAPE, "data_offsets": offsets}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + len(names) * tensor_bytes)


def write_large(folder: Path) -> dict[str, Path]:
    """One file for each spelling of the same header."""
    names = [f"blocks.{each // 20}.attn{each % 20}.weight" for each in range(LARGE_TENSORS)]
    entries = {
        name: {"dtype": "BF16", "shape": [8, 1 + position % 5], "data_offsets": [0, 0]}
        for position, name in enumerate(names)
    }
    end = 0
    for entry in entries.values():
        start, end = end, end + 2 * 8 * entry["shape"][1]
        entry["data_offsets"] = [start, end]
    turned = {name: dict(reversed(entry.items())) for name, entry in entries.items()}
    spellings = {
        "as written": json.dumps(entries, separators=(",", ":")),
        "keys turned": json.dumps(turned, separators=(",", ":")),
        "tensors turned": json.dumps(dict(reversed(entries.items())), separators=(",", ":")),
        "escapes": json.dumps(entries).replace("blocks.1", "bl\\u006fcks.1"),
    }
    paths = {}
    for spelling, text in spellings.items():
        paths[spelling] = folder / f"{spelling}.safetensors"
        with paths[spelling].open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text.encode())
            file.truncate(file.tell() + end)
    return paths


def measure_large(folder: Path) -> dict[str, list[float]]:
    measurements: dict[str, Measurement] = {}
    for spelling, path in write_large(folder).items():
        measurements[f"floor, {spelling}"] = lambda path=path: read_floor([path])
        measurements[f"read_header, {spelling}"] = lambda path=path: read_headers([path])
    return sample_s(measurements, LARGE_ROUNDS)


def read_floor(shards: list[Path]) -> None:
    for path in shards:
        descriptor = os.open(path, os.O_RDONLY)
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        json.loads(os.pread(descriptor, length, 8))
        os.close(descriptor)


def read_inventory_of(root: Path) -> Measurement:
    from roost.probes.model.inventory import read_inventory
    from roost.profiles.class_facts import load_class_facts
    from roost.profiles.models import recognise

    class_facts = load_class_facts()
    return lambda: read_inventory(root, variant=None, dtype=None, class_facts=class_facts, recognise=recognise)


def open_all(shards: list[Path]) -> None:
    """Name, dtype and shape of every tensor, as `read_header` gives them."""
    from safetensors import safe_open

    for path in shards:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it has no __iter__
                tensor = file.get_slice(name)
                tensor.get_dtype(), tensor.get_shape()


def read_headers(shards: list[Path]) -> None:
    from roost.probes.files.headers import read_header

    for path in shards:
        read_header(str(path))


def sample_s(measurements: dict[str, Measurement], rounds: int) -> dict[str, list[float]]:
    """Seconds of each measurement in each round, after one to warm up; in turn, so that all meet the same noise."""
    samples: dict[str, list[float]] = {name: [] for name in measurements}
    for measure in measurements.values():
        measure()
    for _ in range(rounds):
        for name, measure in measurements.items():
            start = time.perf_counter()
            measure()
            samples[name].append(time.perf_counter() - start)
    return samples


def run_roost(*arguments: str) -> Measurement:
    command = [sys.executable, "-m", "roost", *arguments]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def measure_all(root: Path) -> dict[str, list[float]]:
    shards = write_model(root)
    in_process: dict[str, Measurement] = {
        "floor": lambda: read_floor(shards),
        "safe_open": lambda: open_all(shards),
        "read_header": lambda: read_headers(shards),
        "read_inventory": read_inventory_of(root),
    }
    processes = {
        "roost --help": run_roost("--help"),
        "roost inspect": run_roost("inspect", str(root)),
        "roost inspect --json": run_roost("inspect", str(root), "--json"),
    }
    return sample_s(in_process, ROUNDS) | sample_s(processes, PROCESS_ROUNDS)


def judge(median: dict[str, float]) -> dict[str, dict[str, object]]:
    """Each claim with its figure and whether it holds."""
    large = {
        f"reader / floor, {spelling}": (
            median[f"read_header, {spelling}"] / median[f"floor, {spelling}"],
            MAX_READER_RATIO,
        )
        for spelling in (name.removeprefix("floor, ") for name in median if name.startswith("floor, "))
    }
    claims = {
        "inventory / floor": (median["read_inventory"] / median["floor"], MAX_FLOOR_RATIO),
        "headers / safe_open": (median["read_header"] / median["safe_open"], 1.0),
        "roost --help, s": (median["roost --help"], MAX_HELP_S),
        "roost inspect, s": (median["roost inspect"], MAX_INSPECT_S),
        "roost inspect --json, s": (median["roost inspect --json"], MAX_INSPECT_S),
        **large,
    }
    return {name: {"value": value, "limit": limit, "holds": value <= limit} for name, (value, limit) in claims.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "results" / "inspect.json"
    parser.add_argument("-o", "--output", type=Path, default=default, help="result file (default: %(default)s)")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        samples = measure_all(Path(folder) / "model") | measure_large(Path(folder))
    median = {name: statistics.median(each) for name, each in samples.items()}
    claims = judge(median)
    result = {
        "shards": SHARDS,
        "tensors": SHARDS * TENSORS_PER_SHARD,
        "large_tensors": LARGE_TENSORS,
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "safetensors": metadata.version("safetensors"),
        "median_s": median,
        "claims": claims,
        "samples_s": samples,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    for name, seconds in median.items():
        print(f"{name:28} {seconds * 1000:8.1f} ms")
    for name, claim in claims.items():
        print(f"{name:32} {claim['value']:6.2f}  limit {claim['limit']}  {'holds' if claim['holds'] else 'FAILS'}")
    return 0 if all(claim["holds"] for claim in claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
