"""What the campaigns share: a world of their own with a tiny model, commands as real processes, and a summary.

Commands are forks of this process, which has imported the libraries and run nothing: each is a process of its own,
to be killed like any other, and starts in milliseconds.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "campaigns"
sys.path[1:1] = [str(ROOT / "tests"), str(ROOT / "scripts")]
DOCUMENTED = {0, 1, 2, 3, 4, 5, 129, 130, 143}
MARK = "ROOST_CAMPAIGN"
MODEL = "ROOST_CAMPAIGN_MODEL"  # a tiny FLUX that is there already
MACHINE = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0")
WORKLOAD = ("--size", "64x64", "--steps", "2")
_MAKE_MODEL = (
    "import sys; sys.path[:0] = {paths!r}; from pathlib import Path; from tiny_models import build; "
    "build('flux', Path({to!r}))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of one command; ``code`` is negative for a signal that nobody handled."""

    code: int
    out: str
    err: str
    seconds: float


class Sandbox:
    """A folder with homes, a temporary directory, a model and its plan; a context manager that removes it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="campaign-"))
        self.token = self.root.name
        self.work = self.root / "work"
        self.environment = {
            **{name: str(self.root / name.lower()) for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")},
            **{"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"), MARK: self.token},
            **{"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
        }

    def __enter__(self) -> "Sandbox":
        for folder in ("work", "home", "tmp"):
            (self.root / folder).mkdir()
        os.environ.update(self.environment)
        tempfile.tempdir = None
        os.chdir(self.work)
        self._make_model()
        _import_everything()
        made = self.run(["plan", "../model", *MACHINE, *WORKLOAD, "-o", "../plan.yaml"])
        assert made.code == 0, made.err
        return self

    def _make_model(self) -> None:
        """In a process of its own: this one runs nothing, so that forks of it can."""
        if MODEL in os.environ:
            shutil.copytree(os.environ[MODEL], self.root / "model")
            return
        program = _MAKE_MODEL.format(paths=[str(ROOT / "tests"), str(ROOT / "scripts")], to=str(self.root / "model"))
        subprocess.run([sys.executable, "-c", program], check=True, stderr=subprocess.DEVNULL)

    def __exit__(self, *_: object) -> None:
        os.chdir("/")
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self, words: Sequence[str], *, setup: Any = None) -> int:
        """Starts a command as a fork with its streams in files; returns its process id."""
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                signal.signal(getattr(signal, name), signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
            code = _command(words, setup)
        except KeyboardInterrupt:  # before the command has begun
            code = 130
        finally:
            os._exit(code)

    def wait(self, pid: int, began_s: float, timeout_s: float = 300.0) -> Ended:
        while time.monotonic() - began_s < timeout_s:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.005)
        else:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        out, err = ((self.root / name).read_text(errors="replace") for name in ("out", "err"))
        return Ended(code=os.waitstatus_to_exitcode(status), out=out, err=err, seconds=time.monotonic() - began_s)

    def run(self, words: Sequence[str], *, setup: Any = None) -> Ended:
        began_s = time.monotonic()
        return self.wait(self.start(words, setup=setup), began_s)

    def temporary(self) -> list[str]:
        """What is there and temporary."""
        # torch keeps a cache of its own in the temporary directory, which it means to stay.
        in_tmp = (path for path in (self.root / "tmp").iterdir() if not path.name.startswith("torchinductor_"))
        found = [*self.root.rglob("*.roost-tmp*"), *in_tmp]
        found += [*(self.root / "xdg_state_home").glob("roost/temporary/*")]
        return sorted(str(path.relative_to(self.root)) for path in found)

    def orphans(self, patience_s: float = 60.0) -> list[int]:
        """Processes of this campaign that outlive the command that started them by that long; they are ended then."""
        deadline_s = time.monotonic() + patience_s
        while (found := self._processes()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def _processes(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    if f"{MARK}={self.token}".encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found


def _import_everything() -> None:
    import diffusers  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    import roost.cli.app
    import roost.probes.dry_run
    import roost.residency.run.generate  # noqa: F401


def _command(words: Sequence[str], setup: Any) -> int:
    from roost.cli import main

    sys.argv = ["roost", *words]
    try:
        if setup is not None:
            setup()
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        import atexit

        atexit._run_exitfuncs()  # os._exit, which a fork ends with, leaves them out
    return 0


def check_ended(ended: Ended, codes: set[int] = DOCUMENTED) -> str | None:
    """What is wrong with how a command ended; None if nothing is."""
    lines = ended.err.splitlines()
    if "Traceback" in ended.err:
        return f"traceback: {lines[-1][:300]}"
    if ended.code not in codes:
        return f"exit code {ended.code}: {ended.err[-300:]}"
    if ended.code in (1, 2, 3, 4, 5) and sum(line.startswith("error: ") for line in lines) != 1:
        return f"exit code {ended.code} with {len(lines)} lines: {ended.err[-300:]}"
    if "error: unexpected" in ended.err:
        return ended.err[-300:]
    return None


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a campaign found, as a JSON file."""

    campaign: str
    count: int
    seed: int
    began_s: float = field(default_factory=time.monotonic)
    tally: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def fail(self, what: str) -> None:
        self.failures.append(what)
        print(f"FAILED {what}", flush=True)

    def write(self) -> int:
        document: Mapping[str, Any] = {
            "campaign": self.campaign,
            "count": self.count,
            "seed": self.seed,
            "seconds": round(time.monotonic() - self.began_s, 1),
            "tally": dict(sorted(self.tally.items())),
            **self.figures,
            "failures": self.failures,
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{self.campaign}.json").write_text(json.dumps(document, indent=1) + "\n")
        print(json.dumps(document, indent=1))
        return 1 if self.failures else 0


def arguments(what: str | None, count: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(what or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=count, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()
