"""Commands in odd surroundings: no home, a folder that is gone, odd names, little memory, budgets that shrink.

    python benchmarks/campaigns/odd.py --count 1

``--count`` is how often the whole list is gone through; the order changes.
"""

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from sandbox import MACHINE, WORKLOAD, Ended, Sandbox, Summary, arguments, check_ended

RULES = ("--policy", "rules")
ODD_NAMES = (
    "with a space", "line\nbreak", "tab\tname", "ünïcödé 🐦", "-dash", "--help", "$(touch x)", "a'b\"c", "%s{0}",
    "back\\slash", "~", "*", "a;b&c|d", "\u202etrap", "x" * 170, "deep/" * 60 + "end",
    os.fsdecode(b"no\xffutf8"), ".hidden", "name.yaml",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A command, what is odd about where it runs, and whether it must succeed nevertheless."""

    name: str
    words: tuple[str, ...]
    setup: Callable[[], None] = lambda: None
    succeeds: bool = True
    silent: bool = False  # stderr, a file here, takes nothing


def _without(*names: str) -> Callable[[], None]:
    def take_away() -> None:
        for name in names:
            os.environ.pop(name, None)

    return take_away


def _with(**values: str) -> Callable[[], None]:
    return lambda: os.environ.update(values)


def _both(*setups: Callable[[], None]) -> Callable[[], None]:
    def do_all() -> None:
        for each in setups:
            each()

    return do_all


def _gone() -> None:
    Path("gone").mkdir(exist_ok=True)
    os.chdir("gone")
    os.rmdir("../gone")


def _limit(kind: int, count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (count, count))


def _used_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _memory(mib: int) -> Callable[[], None]:
    """Leaves so much address space beyond what is in use."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (_used_bytes() + mib * 2**20, resource.RLIM_INFINITY))


def _shrinking(step: int) -> Callable[[], None]:
    """The emulated device's budget is smaller at each allocation, by so many bytes."""

    def shrink() -> None:
        from roost.residency.device.emulated import arena

        charge = arena.Arena.charge

        def smaller(self: arena.Arena, size: int) -> None:
            self.budget_bytes = max(0, self.budget_bytes - step)
            charge(self, size)

        arena.Arena.charge = smaller  # type: ignore[method-assign]

    return shrink


def _as_nobody() -> None:
    """A user without a home, whom no database knows."""
    os.setgid(54321)
    os.setuid(54321)
    _without("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR")()


def cases(root: Path) -> Iterator[Case]:
    """All of them; ``root`` has the model and its plan."""
    model, plan = str(root / "model"), str(root / "plan.yaml")
    planned = ("plan", model, *MACHINE, *WORKLOAD)
    ran = ("run", plan, "--prompt", "a fox", "-o", "fox.png")
    homeless = _without("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    for words in (planned, ran, ("profiles",), ("models",), ("inspect", model)):
        yield Case(name=f"no HOME: {words[0]}", words=words, setup=homeless)
        yield Case(
            name=f"HOME that is not there: {words[0]}", words=words, setup=_both(homeless, _with(HOME="/nonexistent/x"))
        )
        yield Case(name=f"missing TMPDIR: {words[0]}", words=words, setup=_with(TMPDIR="/nonexistent/x"))
        yield Case(name=f"COLUMNS=20: {words[0]}", words=words, setup=_with(COLUMNS="20", TERM="dumb"))
        yield Case(name=f"COLUMNS=0: {words[0]}", words=words, setup=_with(COLUMNS="0"))
        yield Case(name=f"a folder that is gone: {words[0]}", words=words, setup=_gone, succeeds=False)
        yield Case(
            name=f"read-only places: {words[0]}",
            words=words,
            setup=_with(XDG_CACHE_HOME="/proc/x", XDG_DATA_HOME="/proc/x", XDG_STATE_HOME="/proc/x"),
        )
    yield Case(name="nobody: models", words=("models",), setup=_as_nobody)
    for odd in ODD_NAMES:
        yield Case(
            name=f"output named {odd[:20]!r}", words=(*planned, *RULES, "-o", f"./{odd}"), succeeds="/" not in odd
        )
        yield Case(name=f"model named {odd[:20]!r}", words=("inspect", "--", odd), succeeds=False)
        yield Case(name=f"picture in {odd[:20]!r}", words=(*ran[:-1], f"./{odd}/fox.png"), succeeds=False)
        yield Case(name=f"prompt {odd[:20]!r}", words=("run", plan, f"--prompt={odd}", "--dry-run"), succeeds=False)
    for mib in (0, 8, 64, 256, 1024):
        yield Case(name=f"{mib} MiB of address space: run", words=ran, setup=_memory(mib), succeeds=False)
        yield Case(
            name=f"{mib} MiB of address space: plan",
            words=(*planned, "--no-measured"),
            setup=_memory(mib),
            succeeds=False,
        )
    for kind, count in (
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_FSIZE, 1000),
    ):
        silent = (kind, count) == (resource.RLIMIT_FSIZE, 0)
        name = f"limit {kind} of {count}: run"
        yield Case(name=name, words=ran, setup=_limit(kind, count), succeeds=False, silent=silent)
    for step in (1, 1024, 65536, 2**20, 2**23):
        yield Case(name=f"a budget that shrinks by {step}", words=ran, setup=_shrinking(step), succeeds=False)


def optimised(sandbox: Sandbox, summary: Summary) -> None:
    """Processes that start with PYTHONOPTIMIZE=2: no assertion and no docstring."""
    import subprocess

    for words in (
        ("--help",),
        ("plan", "--help"),
        ("inspect", "../model"),
        ("run", "../plan.yaml", "--prompt", "x", "-o", "o.png"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "roost", *words],
            env={**os.environ, "PYTHONOPTIMIZE": "2"},
            check=False,
            capture_output=True,
            text=True,
        )
        summary.tally[f"PYTHONOPTIMIZE: {done.returncode}"] += 1
        # Without docstrings transformers can't be imported, which is said in one line.
        expected = 2 if words[0] == "run" else 0
        if done.returncode != expected or "Traceback" in done.stderr:
            summary.fail(f"PYTHONOPTIMIZE=2 roost {' '.join(words)}: {done.returncode} {done.stderr[-300:]}")


def judge(case: Case, ended: Ended, sandbox: Sandbox) -> str | None:
    problem = check_ended(ended) if not case.silent else None if ended.code == 2 else f"exit code {ended.code}"
    if problem is None and case.succeeds and ended.code:
        problem = f"exit code {ended.code}: {ended.err[-300:]}"
    if problem is None and sandbox.temporary():
        problem = f"left {sandbox.temporary()}"
    if problem is None and any(path.name == "~" for path in sandbox.root.rglob("~") if path.is_dir()):
        problem = "made a folder named ~"
    return problem


def main() -> int:
    given = arguments(__doc__, 1)
    summary, chance = Summary(campaign="odd", count=given.count, seed=given.seed), Random(given.seed)
    with Sandbox() as sandbox:
        sandbox.root.chmod(0o755)
        for _ in range(given.count):
            optimised(sandbox, summary)
            listed = list(cases(sandbox.root))
            chance.shuffle(listed)
            for case in listed:
                shutil.rmtree(sandbox.root / "xdg_cache_home", ignore_errors=True)
                ended = sandbox.run(case.words, setup=case.setup)
                summary.tally[str(ended.code)] += 1
                problem = judge(case, ended, sandbox)
                if problem:
                    summary.fail(f"{case.name}: {problem}")
                for path in (sandbox.work, sandbox.root / "tmp"):
                    shutil.rmtree(path)
                    path.mkdir()
                os.chdir(sandbox.work)
    return summary.write()


if __name__ == "__main__":
    sys.exit(main())
