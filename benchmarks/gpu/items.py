"""What the suite measures, the most telling first; each item says for how long, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent


@dataclass(frozen=True)
class Item:
    """One command, which takes ``-o FILE`` for its JSON; ``minutes`` is the most it may take."""

    name: str
    minutes: float
    why: str
    command: tuple[str, ...]


def items_for(device: str) -> list[Item]:
    """The ranked items; where no GPU is, the same commands on a small model."""
    return cuda_items() if device == "cuda" else small_items(device)


def cuda_items() -> list[Item]:
    """Real sizes, weights made at random on the GPU."""
    flux = ("flux.1-dev", "--size", "1024x1024", "--steps", "28")
    qwen = ("qwen-image", "--size", "1024x1024", "--steps", "20")
    wan = ("wan2.2-t2v-a14b", "--size", "832x480", "--frames", "33", "--steps", "20")
    wan_720p = ("wan2.2-t2v-a14b", "--size", "1280x720", "--frames", "81", "--steps", "20")
    return [
        Item("smoke", 1, "same bits, copies, who waits for whom: what is wrong shows here", script("gpu/smoke.py")),
        Item("rates", 1, "the link and the arithmetic that bounds are computed from", roost("probe")),
        Item("tests", 4, "the tests marked gpu: nothing below counts if they fail", script("gpu/gpu_tests.py")),
        Item("engine", 3, "the engine on stacks of equal blocks", script("streaming.py", "--device", "cuda")),
        Item(
            "flux-reserved",
            3,
            "what the allocator reserves beyond what is allocated, with and without expandable segments",
            script("gpu/reserved.py", *flux),
        ),
        Item("flux-residency", 7, "transfer-bound: 0 to 100 % of the blocks resident", residency(*flux, seconds=380)),
        Item("flux-peers", 8, "diffusers' own offloads beside it", peers(*flux, "--vram", "24GiB", seconds=440)),
        Item("flux-sglang", 2, "SGLang's layerwise manager, half resident", other_tool("sglang", *flux)),
        Item("flux-mmgp", 2, "mmgp's streaming, half of it resident", other_tool("mmgp", *flux)),
        Item("wan-residency", 8, "compute-bound: a video of 33 frames", residency(*wan, seconds=440)),
        Item(
            "flux-generations", 3, "cold, second, tenth and twentieth generation, and fragmentation", generations(*flux)
        ),
        Item("flux-load", 2, "from files to ready, against a plain read of them", script("gpu/load.py", "flux.1-dev")),
        Item("flux-encoders", 4, "strategies of the text encoders and the VAE", whole(*flux, seconds=200)),
        Item("qwen-residency", 8, "transfer-bound: the largest image model", residency(*qwen, seconds=440)),
        Item("qwen-peers", 9, "diffusers' own offloads beside it", peers(*qwen, "--vram", "40GiB", seconds=500)),
        Item("wan-encoders", 6, "strategies of UMT5-XXL and the video VAE", whole(*wan, seconds=320)),
        Item("qwen-encoders", 5, "strategies of Qwen2.5-VL and its VAE", whole(*qwen, seconds=260)),
        Item(
            "wan-720p",
            8,
            "a step of 81 frames takes over 10 s at full speed: one step, ours and diffusers'",
            peers(*wan_720p, "--vram", "40GiB", "--trial-steps", "1", seconds=440),
        ),
    ]


def small_items(device: str) -> list[Item]:
    """The same commands on a model that is made first: ``emulated``, or as on a GPU where a ``simulated`` one is."""
    model = str(BENCHMARKS.parent / "build" / "suite-model")
    emulated = ("--gpu", "emulated", "--link-speed", "1GB/s") if device == "emulated" else ()
    on = ("--device", "emulated") if device == "emulated" else ()
    on_cuda = () if device == "emulated" else ("--device", "cuda")
    # What a CUDA context takes comes off the memory that is given.
    most, least = ("128MiB", "24MiB") if device == "emulated" else ("640MiB", "576MiB")
    workload = ("--size", "64x64", "--frames", "9", "--steps", "4", "--trial-steps", "3", "--headroom", "0")
    small = (model, *emulated, *workload)
    tests = Item("tests", 2, "the tests marked gpu, all skipped here", script("gpu/gpu_tests.py"))
    reserved = Item("small-reserved", 3, "nothing is reserved here", script("gpu/reserved.py", *small, "--vram", least))
    return [
        Item("smoke", 2, "the first minute of the suite", script("gpu/smoke.py", *on)),
        *([tests] if device == "emulated" else []),  # tests/simulated_gpu runs them where it is simulated
        Item("rates", 3, "what this machine does", roost("probe", *on)),
        Item("model", 1, "a small Wan2.2-like model", script("gpu/small_model.py", model)),
        Item("engine", 3, "the engine on stacks of equal blocks", script("streaming.py", *on_cuda, "--passes", "3")),
        Item(
            "small-residency",
            4,
            "0 to 100 % of the blocks resident",
            residency(*small, "--vram", most, seconds=180),
        ),
        Item("small-peers", 4, "diffusers' own offloads: skipped here", peers(*small, "--vram", least, seconds=180)),
        Item("small-sglang", 1, "another tool: absent here", other_tool("sglang", model)),
        *([reserved] if device == "emulated" else []),  # segments that grow aren't modelled
        Item("small-generations", 4, "twenty generations", generations(*small, "--vram", least)),
        Item("small-load", 1, "from files to ready", script("gpu/load.py", model, *on)),
        Item("small-encoders", 4, "strategies of encoders and VAE", whole(*small, "--vram", most, seconds=180)),
    ]


def script(name: str, *options: str) -> tuple[str, ...]:
    """A script of the benchmarks."""
    return (str(BENCHMARKS / name), *options)


def roost(command: str, *options: str) -> tuple[str, ...]:
    """A command of Roost as one that writes its JSON to a file."""
    return (str(HERE / "to_file.py"), command, *options)


def bench(*options: str, seconds: int, strategies: str, rounds: int = 1) -> tuple[str, ...]:
    """Timed trials; what has been measured when the time is over counts."""
    limits = ("--max-seconds", str(seconds), "--rounds", str(rounds))
    return ("-m", "roost", "bench", *options, "--strategies", strategies, *limits)


def residency(*options: str, seconds: int) -> tuple[str, ...]:
    return bench(*options, seconds=seconds, strategies="resident,layerwise-offload,search", rounds=2)


def peers(*options: str, seconds: int) -> tuple[str, ...]:
    return bench(*options, "--against", "diffusers", seconds=seconds, strategies="rules,search", rounds=2)


def whole(*options: str, seconds: int) -> tuple[str, ...]:
    return bench(*options, seconds=seconds, strategies="resident,component-offload,snapshot-offload,rules,search")


def generations(*options: str) -> tuple[str, ...]:
    return script("gpu/generations.py", *options)


def other_tool(tool: str, *options: str) -> tuple[str, ...]:
    return script("gpu/other_tools.py", *options, "--tool", tool)
