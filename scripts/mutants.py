"""Small wrong changes of the code, each run against its module's own tests: which of them does no test notice?

Draws mutants with a fixed seed over the modules in ``tests/mutated_modules.json`` (a module of src/roost to its test
files), runs each in a copy of the tree, and keeps every outcome in a file, so that the same command goes on after an
interruption:

    python scripts/mutants.py --count 300 --seed 1 --results build/mutants.json

Of a mutant that survived, the file may have by hand what people ``judged``: that it is ``equal`` or costs only
``speed`` or ``text``, that it was ``killed since``, or that a ``test added`` kills it; and ``why`` where that isn't
plain.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import NoReturn

import pytest

from mutations_of import Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "tests" / "mutated_modules.json"
COPIED = ("src", "tests", "scripts", "docs", "benchmarks", "pyproject.toml", "README.md")
# Before a library is imported: one thread, no network, and no code of a mutant is kept.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
sys.dont_write_bytecode = True
# pytest's codes: tests failed, or could not be collected; anything else but 0 is no verdict.
_FAILED = (1, 2)


def main(arguments: list[str]) -> int:
    asked = _options(arguments)
    results = _Results(asked.results, {"seed": asked.seed, "count": asked.count, "files": asked.only})
    with tempfile.TemporaryDirectory(prefix="roost-mutants-") as folder:
        copy = Path(folder)
        _copy_tree(copy)
        # By their hashes: a mutant may be as long and as old as what it replaces.
        compileall.compile_dir(copy, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
        _import_libraries()
        drawn = draw(asked.seed, asked.count, asked.only)
        for number, (module, tests, mutant) in enumerate(drawn, 1):
            key = f"{module}:{mutant.line}:{mutant.column}:{mutant.what}"
            if key not in results.outcomes:
                results.keep(key, run(copy, module, tests, mutant, asked.timeout))
            print(f"{number}/{len(drawn)} {results.outcomes[key]['outcome']:9} {key}", flush=True)
    results.show()
    return 0


def draw(seed: int, count: int, only: str) -> list[tuple[str, list[str], Mutant]]:
    """``count`` mutants, or all there are: the same for the same code, seed and modules."""
    listed: dict[str, list[str]] = json.loads(MODULES.read_text(encoding="utf-8"))
    found = [
        (module, tests, mutant)
        for module, tests in sorted(listed.items())
        if only in module
        for mutant in mutants_of((ROOT / "src" / "roost" / module).read_text(encoding="utf-8"))
    ]
    return random.Random(seed).sample(found, min(count, len(found)))


def run(copy: Path, module: str, tests: list[str], mutant: Mutant, timeout_s: float) -> dict[str, object]:
    """The outcome of one mutant: killed, survived, timeout or broken (pytest itself could not run)."""
    path = copy / "src" / "roost" / module
    original = path.read_text(encoding="utf-8")
    began_s = time.perf_counter()
    try:
        path.write_text(mutant.source, encoding="utf-8")
        outcome = _run_tests(copy, tests, timeout_s)
    finally:
        path.write_text(original, encoding="utf-8")
    return {"outcome": outcome, "seconds": round(time.perf_counter() - began_s, 1), "now": mutant.now}


def _run_tests(copy: Path, tests: list[str], timeout_s: float) -> str:
    """In a fork of this process, which has imported the libraries and nothing of Roost."""
    pid = os.fork()
    if not pid:
        _be_tests(copy, tests)
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return "survived" if code == 0 else "killed" if code in _FAILED else "broken"
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)  # the tests' own children too
    os.waitpid(pid, 0)
    return "timeout"


def _be_tests(copy: Path, tests: list[str]) -> NoReturn:
    code = 70
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        os.chdir(copy)
        sys.path.insert(0, str(copy / "src"))
        os.environ |= {"PYTHONPATH": str(copy / "src"), "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / ".hypothesis")}
        code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
    finally:
        os._exit(code)


def _import_libraries() -> None:
    """What takes seconds to import, and isn't mutated."""
    import diffusers
    import torch
    import transformers

    for each in (diffusers.DiffusionPipeline, torch.nn.Module, transformers.PreTrainedModel):
        assert each


class _Results:
    """The file of outcomes, rewritten after each mutant."""

    def __init__(self, path: Path, asked: dict[str, object]) -> None:
        self._path, self._asked = path, asked
        self.outcomes: dict[str, dict[str, object]] = {}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["asked"] != asked:
                sys.exit(
                    f"error: {path} is of other mutants ({kept['asked']}); remove it, or choose another --results."
                )
            self.outcomes = kept["outcomes"]

    def keep(self, key: str, outcome: dict[str, object]) -> None:
        self.outcomes[key] = outcome
        counted = {"counts": self._count("outcome"), "judged": self._count("judged")}
        document = {"asked": self._asked, **counted, "outcomes": self.outcomes}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text(json.dumps(document, indent=1), encoding="utf-8")
        unfinished.replace(self._path)

    def show(self) -> None:
        """The score, and who survived and isn't judged; a timeout counts as noticed."""
        counts = self._count("outcome")
        ended = sum(counts.values()) - counts["broken"]
        noticed = counts["killed"] + counts["timeout"]
        print(f"{noticed} of {ended} noticed ({noticed / max(1, ended):.0%}): {dict(counts)}")
        print(f"of the others people judged: {dict(self._count('judged'))}")
        for key, each in sorted(self.outcomes.items()):
            if each["outcome"] in ("survived", "broken") and "judged" not in each:
                print(f"{each['outcome']}  src/roost/{key}\n          {each['now']}")

    def _count(self, name: str) -> Counter[str]:
        return Counter(str(each[name]) for each in self.outcomes.values() if name in each)


def _copy_tree(copy: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="modules whose path has this text")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="for one mutant")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "mutants.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
