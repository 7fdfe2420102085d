"""Roost against other offloading runtimes on a simulated GPU: real modules, real calls, virtual time.

    python tests/simulated_gpu/environment.py python benchmarks/simulated_race.py [--models A,B] [--cards C,D]
    python benchmarks/simulated_race.py --table        # the table of what is in the results already; needs no torch

Each contestant runs one denoiser at its published size, a first pass and steady ones, in a process of its own. Every
figure is simulated: kernels compute nothing, and seconds come from the planner's rates of a card and from what each
contestant enqueues, waits for and allocates. Beside a peer stands Roost as the planner would have it stream in the
memory that the peer reserves.
"""

from __future__ import annotations

import sys
from pathlib import Path

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
sys.path[0] = str(Path(__file__).with_name("simulated_runs"))

import argparse  # noqa: E402 - after the line above
import json  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

from race_table import table  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "simulated-race.json"
MODELS = ("flux.1-dev", "qwen-image", "wan2.2-t2v-a14b", "sdxl")
CARDS = ("rtx-3060", "rtx-4090", "rtx-5090", "a100-40gb")  # compute fast and slow beside the link


def race(models: list[str], cards: list[str]) -> None:
    """Races on each pair, and writes the results after each."""
    from children import leave_cuda_to_children  # these need the simulated environment

    leave_cuda_to_children()
    from field import Field

    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["pairs"] if RESULTS.exists() else []
    pairs = {(each["model"], each["card"]): each for each in kept}
    for model in models:
        field = Field.of(model)
        for card in cards:
            began_s = time.monotonic()
            pairs[model, card] = field.raced_on(card)
            print(f"{model} on {card}: {time.monotonic() - began_s:.0f} s of real time", flush=True)
            write([pairs[key] for key in sorted(pairs, key=_order)])


def _order(pair: tuple[str, str]) -> tuple[int, int]:
    return MODELS.index(pair[0]), CARDS.index(pair[1])


def write(pairs: list[dict[str, Any]]) -> None:
    text = json.dumps({"simulated": True, "pairs": pairs}, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(table(pairs), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--cards", default=",".join(CARDS))
    parser.add_argument("--table", action="store_true", help="write the table alone")
    asked = parser.parse_args()
    if asked.table:
        write(json.loads(RESULTS.read_text(encoding="utf-8"))["pairs"])
    else:
        race(asked.models.split(","), asked.cards.split(","))


if __name__ == "__main__":
    main()
