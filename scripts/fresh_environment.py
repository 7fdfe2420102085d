"""A fresh virtual environment that sees the packages of this one, so that torch is not fetched again."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path


def fresh_environment(folder: Path, packages: Sequence[str], *options: str, paths: Sequence[Path] = ()) -> Path:
    """Makes the environment anew with ``packages`` as pip takes them, and returns its Python.

    They go before what this environment has of the same name, and so do ``paths``. An editable install of this one is
    not seen: the file that leads to it is not read from there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    own = sysconfig.get_path("purelib")
    lines = [*(str(path.resolve()) for path in paths), own]
    (Path(site.strip()) / "beside.pth").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, *packages], check=True)
    return python
