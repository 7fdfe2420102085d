"""Stands in for a trial's process: does what a file plants for the candidate that it is asked to run.

    python stub_trial.py PLANTED REQUEST_DESCRIPTOR ANSWER_DESCRIPTOR

PLANTED maps the denoiser's placement (``resident``, ``layerwise-offload 0 strided 1``) or a peer's name to what
happens: ``{"step_s": 0.01}`` with further figures, or ``{"do": "crash" | "oom" | "kill" | "hang" | "sleep"}``. Every
start appends a line to PLANTED.started.
"""

import json
import os
import signal
import sys
import time
from typing import Any


def key_of(request: dict[str, Any]) -> str:
    plan = request["plan"]["components"]["transformer"]
    if request["peer"]:
        return request["peer"]
    if plan["strategy"] != "layerwise-offload":
        return plan["strategy"]
    return f"layerwise-offload {plan['resident_blocks']} {plan['resident_policy']} {plan['prefetch']}"


def say(what: str, **facts: object) -> None:
    os.write(int(sys.argv[-1]), (json.dumps({"what": what, **facts}) + "\n").encode())


def figures(planted: dict[str, Any], steps: int) -> dict[str, Any]:
    step_s = planted.get("step_s", 0.01)
    stages = [
        {
            "name": "denoise",
            "phase": "denoise",
            "component": "transformer",
            "seconds": step_s * steps,
            "peak_bytes": 1000,
        }
    ]
    return {
        "status": "ok", "load_s": 0.5, "generation_s": 1.0 + step_s * steps, "step_seconds": [step_s] * (steps - 1),
        "stages": stages, "digest": "a" * 64, "peak_bytes": 1000, "later_peak_bytes": 1000, "reserved_bytes": None,
        "host_peak_bytes": 5000, "pinned_bytes": 100, "bytes_copied": 200,
        "stall_s": 0.0, "demotions": {}, **{k: v for k, v in planted.items() if k not in ("step_s", "said_s")},
    }  # fmt: skip


def main() -> None:
    with os.fdopen(int(sys.argv[-2])) as file:
        request = json.load(file)
    key = key_of(request)
    with open(f"{sys.argv[1]}.started", "a") as started:
        started.write(f"{key}\t{os.getpid()}\t{request['warm_up_steps']}\n")
    with open(sys.argv[1]) as file:
        planted = json.load(file).get(key, {})
    say("phase", phase="loading transformer")
    what = planted.get("do")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "oom":
        say("failed", status="oom", reason="decode (vae): out of memory")
    elif what == "hang":
        while True:
            say("beat")
            time.sleep(0.05)
    elif what == "sleep":
        time.sleep(600)
    say("loaded", load_s=0.5)
    for _ in sys.stdin:
        for seconds in planted.get("said_s") or [planted.get("step_s", 0.01)] * request["call"]["steps"]:
            say("step", seconds=float(seconds))
        say("result", result=figures(planted, request["call"]["steps"]))


if __name__ == "__main__":
    main()
