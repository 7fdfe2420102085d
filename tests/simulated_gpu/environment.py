"""An environment in which PyTorch's CUDA build runs on the simulated GPU: made once, outside the tree, and reused.

    python environment.py [--torch VERSION] [COMMAND ...]

Without a command it says where the environment lies. The folder is ``$ROOST_SIMULATED_GPU``, else
``~/.cache/roost-simulated-gpu``. It gets PyTorch's CUDA wheel without NVIDIA's libraries, CUDA's headers, what Roost
and its tests import, and the simulated libraries (``libraries.py``), which are built anew when their sources change.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from libraries import SOURCES, build_libraries

ROOT = Path(__file__).resolve().parents[2]
TORCH = "2.11.0"
NEEDS_TORCH = ("accelerate", "peft")  # installed without their dependencies: pip would bring NVIDIA's libraries
TORCH_NEEDS = ("filelock", "typing_extensions", "sympy", "networkx", "jinja2", "fsspec", "numpy")
NOT_NEEDED = ("torch", "roost", "ruff", "mypy", "types-PyYAML", "types-psutil")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where one version of PyTorch and its simulated libraries lie."""

    folder: Path
    torch: str

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    @property
    def libraries(self) -> Path:
        """One folder for each state of their sources: trees that differ share an environment."""
        return self.folder / f"libraries-{_digest(SOURCES)[:12]}"

    def variables(self) -> dict[str, str]:
        """What a process needs in its environment to find the simulated libraries, Roost and its tests."""
        found = [str(self.libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        paths = [ROOT / "src", ROOT / "tests", ROOT / "scripts", ROOT / "tests" / "simulated_gpu"]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(found),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            # Segments that grow need CUDA's virtual memory, which is not modelled.
            "PYTORCH_ALLOC_CONF": "expandable_segments:False",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "HF_HUB_OFFLINE": "1",
            "ROOST_ON_SIMULATED_GPU": "1",
        }


def made(torch: str = TORCH) -> Environment:
    """The environment of that PyTorch; what is missing or stale of it is made first."""
    if platform.machine() != "x86_64" or sys.platform != "linux" or shutil.which("gcc") is None:
        raise SystemExit("error: the simulated GPU needs gcc on x86-64 Linux.")
    where = os.environ.get("ROOST_SIMULATED_GPU") or Path.home() / ".cache" / "roost-simulated-gpu"
    environment = Environment(folder=Path(where).expanduser().resolve() / f"torch-{torch}", torch=torch)
    environment.folder.mkdir(parents=True, exist_ok=True)
    _once(environment.folder / "venv", _digest([ROOT / "constraints.txt"]), lambda: _venv(environment))
    headers = environment.folder / "headers"
    _once(headers, torch, lambda: _headers(environment, headers))
    torch_libraries = next(environment.folder.glob("venv/lib/python*/site-packages/torch/lib"))
    _once(
        environment.libraries,
        "",
        lambda: build_libraries(torch_libraries, next(headers.glob("nvidia/*/include")), environment.libraries),
    )
    return environment


def _once(folder: Path, version: str, make: Callable[[], None]) -> None:
    """Makes ``folder`` anew unless it is whole and of this ``version``."""
    stamp = folder / ".made"
    if stamp.is_file() and stamp.read_text() == version:
        return
    sys.stderr.write(f"making {folder}\n")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    make()
    stamp.write_text(version)


def _digest(files: list[Path]) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _venv(environment: Environment) -> None:
    subprocess.run([_python_3_12(), "-m", "venv", environment.folder / "venv"], check=True)
    wheel = _wheel(environment, f"torch=={environment.torch}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *TORCH_NEEDS]
    by_name = {re.split(r"[\[>=<]", each)[0]: each for each in wanted}
    first = [each for name, each in by_name.items() if name not in (*NOT_NEEDED, *NEEDS_TORCH)]
    install: list[str | Path] = [environment.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = environment.folder / "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constraints.write_text("\n".join(line for line in lines if not line.startswith("torch==")) + "\n")
    subprocess.run([*install, "-c", constraints, *first], check=True)
    subprocess.run([*install, "-c", constraints, "--no-deps", *NEEDS_TORCH, wheel], check=True)
    # Roost itself is read from the tree that asks, but says its version from what is installed.
    site = next(environment.folder.glob("venv/lib/python*/site-packages"))
    described = site / f"roost-{project['version']}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: roost\nVersion: {project['version']}\n")


def _python_3_12() -> Path:
    """A Python 3.12 that runs, if this machine has one; else the one that runs this."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = shutil.which("python3.12")
    for each in [*([Path(named)] if named else []), *sorted(pyenv.glob("3.12*/bin/python3"))]:
        if subprocess.run([each, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return each
    return Path(sys.executable)


def _headers(environment: Environment, folder: Path) -> None:
    """CUDA's headers, of the toolkit that this PyTorch was built with."""
    with zipfile.ZipFile(_wheel(environment, f"torch=={environment.torch}")) as wheel:
        metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        toolkit = re.search(r"cuda-toolkit\[.*\]==(\d+\.\d+)", wheel.read(metadata).decode())
    if toolkit is None:
        raise SystemExit(f"error: the wheel of torch {environment.torch} for this Python is no CUDA build.")
    for name in ("nvidia-cuda-runtime", "nvidia-cuda-crt"):
        with zipfile.ZipFile(_wheel(environment, f"{name}=={toolkit[1]}.*")) as wheel:
            wheel.extractall(folder, [each for each in wheel.namelist() if "/include/" in each])


def _wheel(environment: Environment, requirement: str) -> Path:
    """One wheel without its dependencies, kept beside the environments."""
    kept = environment.folder.parent / "wheels" / re.sub(r"[^\w.]+", "-", requirement)
    if not list(kept.glob("*.whl")):
        pip: list[str | Path] = [environment.python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--only-binary", ":all:", "--dest", kept, requirement], check=True)
    return next(kept.glob("*.whl"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--torch", default=os.environ.get("TORCH") or TORCH, help=f"PyTorch's version, {TORCH} by default"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="run in the environment; `python` is its Python")
    asked = parser.parse_args()
    environment = made(asked.torch)
    if not asked.command:
        sys.stdout.write(f"{environment.python}\nLD_LIBRARY_PATH={environment.libraries}\n")
        return 0
    program = str(environment.python) if asked.command[0] == "python" else asked.command[0]
    return subprocess.run([program, *asked.command[1:]], env=environment.variables(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
