"""A trial's process may crash, run out of memory, hang or start others: its parent learns why, and nothing is left."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from roost.plan.results import TrialResult
from roost.tune.trials import process
from roost.tune.trials.messages import Loaded, Message, Phase, Timed
from roost.tune.trials.process import Child, Patience, TrialEnded, child_environment

# What every planted child begins with: its request, and a way to answer.
BEGIN = """
import json, os, signal, subprocess, sys, time
request = json.load(os.fdopen(int(sys.argv[-2])))
def say(what, **facts): os.write(int(sys.argv[-1]), (json.dumps({"what": what, **facts}) + "\\n").encode())
say("phase", phase="loading transformer")
"""
PATIENT = Patience(deadline_s=30.0)


def planted(script: str, request: bytes = b"{}") -> Child:
    return Child(request, os.environ, (sys.executable, "-c", BEGIN + script))


def ending_of(script: str, patience: Patience = PATIENT) -> TrialEnded:
    child = planted(script)
    try:
        with pytest.raises(TrialEnded) as caught:
            child.ask("", patience)
    finally:
        child.close()
    return caught.value


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def gone_within_s(pid: int, seconds: float) -> bool:
    until_s = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until_s:
        time.sleep(0.02)
    return not alive(pid)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_program_that_can_not_be_started_is_a_reason_and_leaves_nothing_open() -> None:
    before = open_descriptors()
    with pytest.raises(TrialEnded, match="the trial can't be started: No such file or directory") as caught:
        Child(b"{}", os.environ, ("/nonexistent/python",))
    assert caught.value.status == "crashed"
    assert open_descriptors() == before


@pytest.mark.parametrize("room_for", [0, 1])
def test_a_full_folder_for_temporary_files_is_a_reason_and_leaves_nothing_open(room_for: int, monkeypatch) -> None:
    made, file = [], process.tempfile.TemporaryFile

    def temporary_file() -> object:
        if len(made) == room_for:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        made.append(file())
        return made[-1]

    monkeypatch.setattr(process.tempfile, "TemporaryFile", temporary_file)
    before = open_descriptors()
    with pytest.raises(TrialEnded, match="the trial can't be started: No space left on device"):
        Child(b"{}", os.environ, (sys.executable, "-c", "pass"))
    assert open_descriptors() == before


def timed(digest: str) -> Timed:
    return Timed(result=TrialResult(status="ok", digest=digest))


def test_a_child_answers_every_line_and_gets_its_request() -> None:
    child = planted(
        "say('loaded', load_s=request['n'])\n"
        "for line in sys.stdin: say('result', result={'status': 'ok', 'digest': line})",
        b'{"n": 7}',
    )
    heard: list[object] = []
    try:
        assert child.ask("", PATIENT) == Loaded(load_s=7.0)
        assert child.ask("one", PATIENT, heard.append) == timed("one\n")
        assert child.ask("two", PATIENT) == timed("two\n")
    finally:
        child.close()
    assert heard == [timed("one\n")]


def test_a_request_larger_than_any_pipe_does_not_block_on_a_child_that_never_reads() -> None:
    child = Child(b"x" * 10**6, os.environ, (sys.executable, "-c", "import time; time.sleep(60)"))
    try:
        with pytest.raises(TrialEnded, match=r"not done after 200 ms"):
            child.ask("", Patience(deadline_s=0.2))
    finally:
        child.close()


def test_a_crash_is_a_reason_with_the_signal_the_phase_and_the_last_words() -> None:
    ended = ending_of("print('assertion: lane', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert ended.status == "crashed"
    assert str(ended) == "died of SIGSEGV, while loading transformer: assertion: lane"


def test_an_exit_code_is_a_crash() -> None:
    ended = ending_of("sys.exit(7)")
    assert (ended.status, str(ended)) == ("crashed", "ended with code 7, while loading transformer")


def test_a_failure_that_the_child_reports_keeps_its_status() -> None:
    ended = ending_of("say('failed', status='oom', reason='decode: out of memory')")
    assert (ended.status, str(ended)) == ("oom", "decode: out of memory")


def test_killed_by_the_kernel_for_memory_is_oom_and_killed_by_someone_is_a_crash(monkeypatch) -> None:
    kills = iter([3, 4])
    monkeypatch.setattr(process, "count_oom_kills", lambda: next(kills))
    ended = ending_of("os.kill(os.getpid(), signal.SIGKILL)")
    assert (ended.status, str(ended)[:21]) == ("oom", "host memory ran out: ")
    monkeypatch.setattr(process, "count_oom_kills", lambda: 4)
    ended = ending_of("os.kill(os.getpid(), signal.SIGKILL)")
    assert (ended.status, str(ended)[:27]) == ("crashed", "killed from outside (SIGKIL")


def test_a_beating_child_that_never_finishes_hangs_at_its_deadline() -> None:
    ended = ending_of("while True: say('beat'); time.sleep(0.05)", Patience(deadline_s=0.5))
    assert (ended.status, str(ended)) == ("hung", "not done after 500 ms, while loading transformer")


def test_a_silent_child_hangs_long_before_its_deadline() -> None:
    ended = ending_of("time.sleep(60)", Patience(deadline_s=50.0, silence_s=1.0))
    assert (ended.status, str(ended)) == ("hung", "no sign of life for 1.0 s, while loading transformer")


@pytest.mark.parametrize(
    "answer",
    [
        "b'\\xff{\\n'",
        "b'[]\\n'",
        'b\'{"what": "song"}\\n\'',
        'b\'{"what": "loaded"}\\n\'',
        'b\'{"what": "failed", "status": "odd", "reason": ""}\\n\'',
        'b\'{"what": "result", "result": {"status": "ok", "load_s": -1}}\\n\'',
    ],
)
def test_an_answer_that_is_no_message_is_a_crash(answer: str) -> None:
    ended = ending_of(f"os.write(int(sys.argv[-1]), {answer})\ntime.sleep(60)")
    assert (ended.status, str(ended)) == ("crashed", "the trial said something unreadable, while loading transformer")


def test_close_kills_what_the_child_started_too_and_ignores_a_deaf_ear() -> None:
    child = planted(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "own = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "say('phase', phase=f'{os.getpid()} {own.pid}')\nsay('loaded', load_s=0)\ntime.sleep(600)"
    )
    said: list[Message] = []
    try:
        child.ask("", PATIENT, said.append)
    finally:
        child.close()
    pids = [int(pid) for message in said[-2:-1] if isinstance(message, Phase) for pid in message.phase.split()]
    assert len(pids) == 2
    assert all(gone_within_s(pid, 5.0) for pid in pids)
    child.close()  # twice does no harm


def test_a_real_child_ends_by_itself_when_its_parent_is_killed() -> None:
    script = (
        "import os, sys, time\n"
        "from roost.tune.trials.process import Child\n"
        "beating = 'import sys, time; from roost.tune.trials.child import Reporter;'"
        " ' Reporter(int(sys.argv[-1])); time.sleep(600)'\n"
        "child = Child(b'{}', os.environ, (sys.executable, '-c', beating))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            assert alive(pid)
            parent.kill()
            parent.wait()
            assert gone_within_s(pid, 20.0)
        finally:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_real_child_that_takes_more_host_memory_than_it_may_is_out_of_memory() -> None:
    script = (
        "import sys, time\n"
        "from roost.tune.trials.child import Reporter\n"
        "from roost.tune.trials.messages import Phase\n"
        "reporter = Reporter(int(sys.argv[-1]))\n"
        "reporter.limit_host(64 * 2**20)\n"
        "reporter.say(Phase(phase='loading transformer'))\n"
        "taken = bytearray(b'x') * (256 * 2**20)\n"
        "time.sleep(60)"
    )
    child = Child(b"{}", os.environ, (sys.executable, "-c", script))
    try:
        with pytest.raises(TrialEnded, match=r"host memory: it took 256 MiB and may take 64.0 MiB") as caught:
            child.ask("", PATIENT)
    finally:
        child.close()
    assert caught.value.status == "oom"


def test_a_child_finds_no_module_in_a_working_directory_a_relative_entry_or_the_user_site_of_a_model(
    tmp_path: Path, monkeypatch
) -> None:
    model, own = tmp_path / "model", tmp_path / "own"
    own.mkdir()
    (own / "mine.py").write_text("")
    monkeypatch.setenv("PYTHONUSERBASE", str(model / "base"))
    monkeypatch.setattr(process.site, "USER_SITE", None)  # worked out anew
    monkeypatch.setattr(process.site, "USER_BASE", None)
    for folder in (model, model / "entry", Path(process.site.getusersitepackages())):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("roost", "json", "typing", "sitecustomize", "usercustomize"):
            (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    monkeypatch.chdir(model)
    paths = os.pathsep.join(("", "entry", ".", str(own), ""))
    environment = child_environment({**os.environ, "PYTHONPATH": paths, "PYTHONSTARTUP": "roost.py"}, model)
    said = tmp_path / "said.json"
    script = (
        "import typing, mine, roost.tune\n"
        f"json.dump({{'at': os.getcwd(), 'path': sys.path}}, open({str(said)!r}, 'w'))\n"
        "say('loaded', load_s=0.0)"
    )
    child = Child(b"{}", environment, (sys.executable, "-c", BEGIN + script))
    try:
        child.ask("", PATIENT)
    finally:
        child.close()
    loaded = json.loads(said.read_text())
    assert not (tmp_path / "mark").exists()
    assert loaded["at"] == os.path.abspath(os.sep)
    assert str(own) in loaded["path"]
    assert not [each for each in loaded["path"] if not os.path.isabs(each) or Path(each).is_relative_to(model)]
    assert environment["PYTHONNOUSERSITE"] == "1"


def test_a_child_finds_the_package_where_it_lies_below_a_relative_entry(tmp_path: Path, monkeypatch) -> None:
    source = Path(process.__file__).parents[2]
    monkeypatch.chdir(source.parent)
    assert child_environment({"PYTHONPATH": source.name}, tmp_path)["PYTHONPATH"] == str(source)
