"""Builds the simulated libraries: what ``cuda/`` has, and for every other symbol that PyTorch needs a function.

Which symbols those are, and in which library, the wheel itself says. Most return 0, which is success nearly
everywhere; matrix products count as launches and hand their addresses to the runtime.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CUDA = Path(__file__).resolve().parent / "cuda"
RUNTIME = (
    "calls.c",
    "clock.c",
    "copies.c",
    "device.c",
    "kernels.c",
    "memory.c",
    "order.c",
    "parameters.c",
    "streams.c",
)
SOURCES = [Path(__file__), *sorted(CUDA.iterdir())]
DRIVER, NVML = "libcuda.so.1", "libnvidia-ml.so.1"

# Which library a symbol without a version belongs to, by the symbol's prefix and the library's; the first one wins.
PREFIXES = (
    ("cublasLt", "libcublasLt.so"), ("cublas", "libcublas.so"), ("cudnn", "libcudnn.so"), ("cufft", "libcufft.so"),
    ("curand", "libcurand.so"), ("cusparseLt", "libcusparseLt.so"), ("cusparse", "libcusparse.so"),
    ("cusolver", "libcusolver.so"), ("nccl", "libnccl.so"), ("pnccl", "libnccl.so"), ("cuFile", "libcufile.so"),
    ("cupti", "libcupti.so"), ("nvshmem", "libnvshmem_host.so"), ("nvrtc", "libnvrtc.so"), ("cuda", "libcudart.so"),
    ("__cuda", "libcudart.so"),
)  # fmt: skip

# How many arguments follow the handle: of these, those that are addresses on the device count.
PRODUCTS = (
    (re.compile(r"cublasGemmStridedBatchedEx"), 22),
    (re.compile(r"cublas(GemmEx|GemmEx_64)$"), 18),
    (re.compile(r"cublas[SDCZH]gemmStridedBatched(_v2)?$"), 17),
    (re.compile(r"cublas[SDCZH]gemm(_v2)?$"), 13),
)
PRODUCT = """\
int {name}(void *h, ...) {{
    const void *arguments[{count}];
    __builtin_va_list given;
    __builtin_va_start(given, h);
    for (int i = 0; i < {count}; i++) arguments[i] = __builtin_va_arg(given, void *);
    __builtin_va_end(given);
    return called("{name}", stream, arguments, {count});
}}"""


def build_libraries(torch: Path, headers: Path, out: Path) -> None:
    """Compiles into ``out`` every library that the libraries in ``torch`` need and a CUDA machine would have."""
    out.mkdir(parents=True, exist_ok=True)
    for library, symbols in sorted(_needed(torch).items()):
        versions = sorted({version for version in symbols.values() if version})
        if library.startswith("libnvrtc") and not versions:
            versions = [library]
        runtime = [CUDA / each for each in RUNTIME] if library.startswith("libcudart") else []
        written = _written(library) + "".join(source.read_text(encoding="utf-8") for source in runtime)
        rest = out / f"{library}.c"
        rest.write_text("\n".join([_written(library), *_bodies(symbols, written), ""]), encoding="utf-8")
        _compile([*runtime, rest], out / library, headers, versions)
    _compile([CUDA / "nvml.c"], out / NVML, headers, [])


def _written(library: str) -> str:
    """What ``others.c`` has of the library, with the headers it includes."""
    section = f"-DIN_{library.partition('.')[0]}"
    return subprocess.run(
        ["gcc", "-E", "-P", section, str(CUDA / "others.c")], capture_output=True, text=True, check=True
    ).stdout


def _needed(torch: Path) -> dict[str, dict[str, str]]:
    """By library that the wheel lacks: the symbols that PyTorch takes from it, with their versions."""
    undefined: dict[str, str] = {}
    libraries: dict[str, dict[str, str]] = {DRIVER: {}}
    for path in sorted(torch.glob("*.so*")):
        for name in re.findall(r"NEEDED.*\[(lib(?:cu|nv|nccl)[^\]]*)\]", _readelf("-d", path)):
            libraries.setdefault(name, {})
        for line in _readelf("--dyn-syms", path).splitlines():
            parts = line.split()
            if len(parts) >= 8 and parts[6] == "UND":
                name, _, version = parts[7].partition("@")
                undefined[name] = version.lstrip("@")
    for name, version in undefined.items():
        library = version if version in libraries else _library_of(name, libraries)
        if library is not None:
            libraries[library][name] = version
    return libraries


def _readelf(what: str, path: Path) -> str:
    return subprocess.run(["readelf", what, "-W", path], capture_output=True, text=True, check=True).stdout


def _library_of(symbol: str, libraries: dict[str, dict[str, str]]) -> str | None:
    for prefix, library in PREFIXES:
        if symbol.startswith(prefix):
            return next((each for each in libraries if each.startswith(library)), None)
    return DRIVER if re.match(r"cu[A-Z]", symbol) else None


def _bodies(symbols: dict[str, str], written: str) -> list[str]:
    """A function for each symbol that isn't among what is written."""
    defined = set(re.findall(r"\b((?:__)?cu[A-Za-z0-9_]+)\s*\([^;{}]*\)\s*\{", written))
    found = []
    for name in sorted(set(symbols) - defined):
        count = next((count for pattern, count in PRODUCTS if pattern.match(name)), None)
        product = PRODUCT.format(name=name, count=count)
        found.append(f"long {name}(void *first, ...) {{ return 0; }}" if count is None else product)
    return found


def _compile(sources: list[Path], library: Path, headers: Path, versions: list[str]) -> None:
    command: list[str | Path] = [
        "gcc",
        "-O1",
        "-fPIC",
        "-shared",
        "-w",
        f"-I{headers}",
        *sources,
        "-o",
        library,
        f"-Wl,-soname,{library.name}",
    ]
    if versions:
        script = library.with_suffix(library.suffix + ".map")
        script.write_text("".join(f"{version} {{ global: *; }};\n" for version in versions), encoding="utf-8")
        command.append(f"-Wl,--version-script={script}")
    subprocess.run([*command, "-lpthread", "-ldl"], check=True)


if __name__ == "__main__":
    build_libraries(*(Path(each) for each in sys.argv[1:4]))
