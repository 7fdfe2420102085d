"""The golden table: what the search plans for models known by name, on cards of 8 to 80 GB.

    python benchmarks/golden_plans.py            # plans those of the table anew, says what moved, and writes it
    python benchmarks/golden_plans.py --check    # plans a sample and fails where it differs from the table
    python benchmarks/golden_plans.py --only flux.2    # plans the models with this in their names, also new ones

A row is a model, a size, a card and an amount of host memory; it has the verdict, the memory of the process, the
seconds of load and one generation, what was changed by default, and the placement. All are predictions of this version,
on no GPU. Nothing that was measured on this machine goes in.
"""

import sys
from pathlib import Path

# This folder's inspect.py would shadow the standard library's inspect module for everything imported below.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import argparse  # noqa: E402 - after the line above
import json  # noqa: E402
import re  # noqa: E402
from collections.abc import Iterable, Iterator  # noqa: E402
from itertools import product  # noqa: E402

TABLE = Path(__file__).parent / "results" / "golden_plans.json"
# A usual card for each amount of memory that people have.
CARDS = {
    "rtx-4060": 8, "rtx-3080": 10, "rtx-3060": 12, "rtx-4080": 16, "rtx-4090": 24, "rtx-5090": 32, "l40s": 48,
    "a100-80gb": 80,
}  # fmt: skip
RAMS_GIB = (32, 64, 128)
SIZES = ("default", "larger", "smaller")
# Every video model has a plan that fits here at its default size, and there at its own smaller one.
FITS_AT, FITS_SMALLER_AT = "rtx-3060", "rtx-4060"
SAMPLE = (
    ("sdxl", "larger", "rtx-4060"), ("z-image", "default", "rtx-3060"), ("wan2.1-t2v-1.3b", "default", "rtx-4060"),
)  # fmt: skip
# Other releases of the libraries count a few bytes otherwise.
TOLERANCE = 0.01

_PARTS = re.compile(r"(\d+)")
Row = dict[str, object]
Table = dict[str, Row]


def size_of(name: str, size: str) -> tuple[int, int] | None:
    """Width and height; None for a family that is trained at no smaller size."""
    from roost.profiles.models import load_model_profiles

    profile = load_model_profiles()[name]
    width, height = profile.workload.width, profile.workload.height
    if size == "default":
        return width, height
    others = sorted(profile.sizes, key=lambda each: each[0] * each[1])
    if size == "smaller":
        return next((each for each in reversed(others) if each[0] * each[1] < width * height), None)
    trained = next((each for each in others if each[0] * each[1] > width * height), None)
    return trained or (width * 3 // 2 // 32 * 32, height * 3 // 2 // 32 * 32)


def rows(name: str, size: str, card: str) -> Iterator[tuple[str, Row]]:
    """The rows of one card, one for each amount of host memory."""
    from roost.api.plans.sweep import Sweep, sweep_model
    from roost.api.requests.option_sets import PlanOptions
    from roost.units import GiB

    asked = size_of(name, size)
    if asked is None:
        return
    options = PlanOptions(gpu=card, size=asked, measured=False)
    for gib, point in zip(
        RAMS_GIB,
        sweep_model(name, options, Sweep(what="ram", values=tuple(gib * GiB for gib in RAMS_GIB))),
        strict=True,
    ):
        yield f"{name} {asked[0]}x{asked[1]} {card} {gib}GiB", row_of(point.plan)


def row_of(plan) -> Row:
    """What a plan comes to; raises SystemExit where its verdict and its figures disagree."""
    from roost.units import GiB

    budget, predicted = plan.budget, plan.predicted
    if predicted is None or predicted.source != "dry-run":
        raise SystemExit(f"error: {plan.model.family} was not dry-run; the table would be of guesses.")
    if not plan.fits:
        return {"verdict": "does not fit", "lacks": budget.lacks}
    high = predicted.process_bytes.high
    if (plan.certainty == "sure") != (high <= budget.free_bytes):
        raise SystemExit(f"error: certainty is {plan.certainty} where {high} of {budget.free_bytes} bytes are taken.")
    return {
        "verdict": "fits" if plan.certainty == "sure" else "may not fit",
        "process_gib": [round(each / GiB, 2) for each in (predicted.process_bytes.mid, high)],
        "seconds": float(f"{predicted.load_s.mid + predicted.first_s.mid:.4g}"),
        "changed": [f"{each.component} {each.what}" for each in plan.changed_by_default],
        "placement": {name: _placement(each) for name, each in plan.components.items() if each.strategy != "resident"},
    }


def _placement(component) -> str:
    blocks = f" {component.resident_blocks} resident" if component.resident_blocks else ""
    return f"{component.strategy}{blocks}{' by layers' if component.leaf_level else ''}"


def moved(before: Table, after: Table) -> list[str]:
    """A line for each row that is not as it was, numbers within ``TOLERANCE``."""
    lines = []
    for key, row in after.items():
        old = before.get(key)
        if old is None:
            lines.append(f"{key}: new, {_text(row)}")
            continue
        changed = [
            f"{what} {old.get(what)} → {row.get(what)}"
            for what in dict.fromkeys([*old, *row])
            if not _same(old.get(what), row.get(what))
        ]
        if changed:
            lines.append(f"{key}: {'; '.join(changed)}")
    return lines


def _same(one: object, other: object) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) <= TOLERANCE * max(abs(one), abs(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _text(row: Row) -> str:
    return ", ".join(f"{what} {each}" for what, each in row.items())


def promises(table: Table) -> list[str]:
    """The rows of video models that break the promise for 12 and 8 GB."""
    from roost.profiles.models import load_model_profiles
    from roost.profiles.published import model_names

    broken = []
    for name in model_names():
        if load_model_profiles()[name].task != "video":
            continue
        smaller = size_of(name, "smaller") or size_of(name, "default")
        for size, card in ((size_of(name, "default"), FITS_AT), (smaller, FITS_SMALLER_AT)):
            assert size is not None
            keys = [f"{name} {size[0]}x{size[1]} {card} {gib}GiB" for gib in RAMS_GIB]
            verdicts = {str(table[key]["verdict"]) for key in keys if key in table}
            if verdicts and "fits" not in verdicts:
                broken.append(f"{name} {size[0]}x{size[1]} on {card}: {', '.join(sorted(verdicts))}")
    return broken


def questions(table: Table, only: str) -> Iterator[tuple[str, str, str]]:
    """Every size and card of the table's models, or of those with ``only`` in their names; smaller sizes on the
    smaller cards only."""
    from roost.profiles.published import model_names

    known = {key.split()[0] for key in table}
    asked = [name for name in model_names() if (only in name if only else name in known)]
    for name, size, card in product(asked, SIZES, CARDS):
        if size != "smaller" or CARDS[card] <= CARDS[FITS_AT]:
            yield name, size, card


def plan_all(asked: Iterable[tuple[str, str, str]]) -> Table:
    found: Table = {}
    for name, size, card in asked:
        found |= dict(rows(name, size, card))
        print(f"{name} {size} {card}", file=sys.stderr, flush=True)
    return found


def write(table: Table) -> None:
    """The table, a row a line, in the order of names and numbers."""
    rows_in_order = sorted(
        table.items(), key=lambda row: [int(part) if part.isdigit() else part for part in _PARTS.split(row[0])]
    )
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(row)}" for key, row in rows_in_order)
    TABLE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare a sample with the table; change nothing")
    parser.add_argument("--only", default="", metavar="TEXT", help="plan the models whose name has this text")
    options = parser.parse_args()
    before: Table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}
    asked = SAMPLE if options.check else questions(before, options.only)
    found = plan_all(asked)
    lines = moved(before, found)
    print("\n".join(lines) or f"{len(found)} rows, none moved")
    if options.check:
        return 1 if lines else 0
    table = before | found
    write(table)
    for each in promises(table):
        print(f"no plan that surely fits: {each}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
