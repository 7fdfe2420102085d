"""The demo: builds a small Wan2.2-like model in demo/, inspects it, plans it for a GPU it doesn't fit, and runs it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

from roost.cli.app import run as roost

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo"
# What the demo measures is an emulated GPU's, and no business of the user's own store, caches and journals.
HOMES = {f"XDG_{name}_HOME": str(DEMO / "home" / name.lower()) for name in ("DATA", "CACHE", "STATE")}
# Less than the weights take, and some of it goes to activations.
VRAM = "22MiB"


def say(text: str) -> None:
    print(f"\n{textwrap.fill(text, 79, initial_indent='# ', subsequent_indent='#    ')}", flush=True)


def run(*words: str) -> None:
    """Shows a command as a person would type it, runs it, and stops the demo when it fails.

    Commands of Roost run in this process, one after another: each would spend seconds on importing the libraries.
    """
    print(f"$ {shlex.join(words)}", flush=True)
    code = roost(words[1:]) if words[0] == "roost" else subprocess.run([sys.executable, *words], check=False).returncode
    if code:
        sys.exit(code)


def main() -> None:
    os.environ.update(HOMES, HF_HUB_OFFLINE="1")
    os.chdir(ROOT)
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    say("1. A model: a real WanPipeline with two experts, small, with random weights.")
    run("scripts/build_demo_model.py", "demo/model")
    say("2. What is in it? Read from file headers; no weight is touched and torch is not imported.")
    run("roost", "inspect", "demo/model")
    say(
        f"3. Where should each weight live on a GPU with {VRAM}, when weights and activations need more? A dry run of"
        " the pipeline tells what each call costs; the search finds the fastest placement that fits."
    )
    workload = ("--size", "96x64", "--frames", "9", "--steps", "6")
    gpu = ("--gpu", "emulated", "--vram", VRAM, "--headroom", "0")
    run("roost", "plan", "demo/model", *gpu, *workload, "-o", "demo/plan.yaml")
    run("roost", "timeline", "demo/plan.yaml", "-o", "demo/timeline.html")
    say("4. Run the plan. The emulated GPU is the CPU with a memory budget: going over it would be an error.")
    run("roost", "run", "demo/plan.yaml", "--prompt", "a red fox in the snow", "-o", "demo/fox.mp4")
    say("5. The same with everything resident, in a larger budget: the digest, so every bit, is the same.")
    large = ("--gpu", "emulated", "--vram", "1GiB", "--headroom", "0", "--mode", "speed")
    run("roost", "plan", "demo/model", *large, *workload, "-o", "demo/resident.yaml")
    run("roost", "run", "demo/resident.yaml", "--prompt", "a red fox in the snow", "-o", "demo/fox-resident.mp4")
    say("6. Is it the best? Trials of the plan and the rules' one, compared with the output of diffusers alone.")
    once = ("--strategies", "rules", "--rounds", "1")
    run("roost", "bench", "demo/plan.yaml", *once, "-o", "demo/bench.json")
    run("roost", "report", "demo/bench.json", "-o", "demo/bench.html")
    say("7. What if? A model of 118 GiB that isn't here, on a card that isn't here either.")
    run("roost", "plan", "wan2.2-t2v-a14b", "--gpu", "rtx-4090", "--ram", "96GiB")
    say(
        "Left for you: demo/timeline.html and demo/bench.html (open them), demo/plan.yaml (read it), demo/fox.mp4"
        " (random weights paint noise), demo/model. What was measured is kept in demo/home and not in your own data"
        " directory: roost profiles is as it was."
    )


if __name__ == "__main__":
    main()
