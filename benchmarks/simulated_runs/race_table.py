"""The race's results as a table for people; every figure in it is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

GIB = 2**30
AHEAD = 0.01  # a peer that is faster by more than this share is ahead
STEADY_GOAL, FIRST_GOAL = 1.02, 1.10  # times the bound
AGREE = 0.03  # between the planner's simulation and the simulated GPU
Row = dict[str, Any]


def table(pairs: list[Row]) -> str:
    lines = [
        "# The simulated race",
        "",
        "Every figure is **simulated**: no GPU was there. PyTorch's CUDA build runs on libraries that stand for NVIDIA's;",
        "kernels compute nothing, times are the planner's rates of a card, and what each contestant calls, copies, waits for",
        "and reserves is real. Its own Python takes no time here. Written by `benchmarks/simulated_race.py`.",
        "",
        "Seconds are of a first pass and of a steady one, × is over the bound: compute, launches, or what was copied over the",
        "link, whichever takes longest; of a first pass at least every weight, and what is outside all blocks comes before",
        "any compute. What a contestant had on the card before its first pass is added at the link's rate. *Foreseen* is the",
        "planner's own simulation, fed with the same seconds of blocks and bytes. Beside each peer: Roost as the planner has",
        "it stream in no more reserved memory.",
        "",
        *_summary(pairs),
    ]
    for pair in pairs:
        lines += ["", *_pair(pair)]
    return "\n".join(lines) + "\n"


def roost_rows(pairs: list[Row]) -> list[Row]:
    """Every run of Roost that went as asked, each once."""
    found = []
    for pair in pairs:
        beside = [each["roost"] for each in pair["peers"] if "roost" in each]
        for row in (*pair["roost"], *beside):
            asked = {key: value for key, value in row.items() if key != "name"}
            if "failed" not in row and not row["gave_up"] and asked not in found:
                found.append(asked)
    return found


def ahead(pairs: list[Row]) -> Iterator[tuple[Row, Row, str, float]]:
    """Peers that are ahead of Roost in as much memory: the pair, the peer's row, which pass, by what share."""
    for pair in pairs:
        for row in pair["peers"]:
            roost = row.get("roost", {})
            for which in ("steady", "first") if "steady" in roost else ():
                share = roost[which]["seconds"] / row[which]["seconds"] - 1
                if share > AHEAD:
                    yield pair, row, which, share


def _summary(pairs: list[Row]) -> Iterator[str]:
    rows = roost_rows(pairs)
    if not rows:
        return
    for which, goal in (("steady", STEADY_GOAL), ("first", FIRST_GOAL)):
        ratios = sorted(row[which]["seconds"] / row[f"{which}_bound_s"] for row in rows)
        within = sum(ratio <= goal for ratio in ratios)
        yield f"- Roost's {which} passes: {within} of {len(ratios)} within {goal:.2f} × the bound, the slowest {ratios[-1]:.3f} ×."
    apart = [abs(_off(row, which)) for row in rows for which in ("steady", "first")]
    agreeing = sum(share <= AGREE for share in apart)
    yield f"- Foreseen and simulated agree within {AGREE:.0%} in {agreeing} of {len(apart)} passes; furthest apart {max(apart):.1%}."
    compared = [row for pair in pairs for row in pair["peers"] if "steady" in row.get("roost", {})]
    found = list(ahead(pairs))
    yield f"- Of {len(compared)} peers' rows with Roost in as much memory, {len(found)} passes are ahead by more than {AHEAD:.0%}."
    for pair, row, which, share in found:
        yield f"  - {pair['model']} on {pair['card']}: {row['name']}, {which}, by {share:.1%}"


def _off(row: Row, which: str) -> float:
    """How far the planner's simulation is from the simulated GPU, as a share."""
    return float(row["foreseen"][f"{which}_s"] / row[which]["seconds"] - 1)


def _pair(pair: Row) -> Iterator[str]:
    link_s = pair["weights_bytes"] / pair["link_bytes_per_s"]
    yield f"## {pair['model']}, {pair['size']}, on {pair['card']}"
    yield ""
    yield (
        f"{pair['weights_bytes'] / GIB:.1f} GiB of weights; a pass computes {pair['compute_s']:.3f} s, launches take"
        f" {pair['host_s']:.3f} s, all copies {link_s:.3f} s."
    )
    yield ""
    yield "| Roost | reserved GiB | steady s | first s | foreseen steady, first | copied GiB steady, first | syncs |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in pair["roost"]:
        yield _roost_row(row)
    yield ""
    yield "| peer | reserved GiB | steady s | first s | copied GiB | syncs | Roost there: residents, steady s, first s |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in pair["peers"]:
        yield _peer_row(row)


def _roost_row(row: Row) -> str:
    if "failed" in row:
        return f"| {row['name']} | {row['failed']} | | | | | |"
    if row["gave_up"]:
        return f"| {row['name']} | {_reserved(row)} | {_seconds(row)} | {'; '.join(row['gave_up'])} | | {_syncs(row)} |"
    foreseen = ", ".join(
        f"{row['foreseen'][f'{which}_s']:.3f} ({_off(row, which):+.1%})" for which in ("steady", "first")
    )
    copied = ", ".join(f"{row[which]['h2d_bytes'] / GIB:.2f}" for which in ("steady", "first"))
    return f"| {row['name']} | {_reserved(row)} | {_seconds(row)} | {foreseen} | {copied} | {_syncs(row)} |"


def _peer_row(row: Row) -> str:
    if "failed" in row:
        return f"| {row['name']} | {row['failed']} | | | | | |"
    copied = ", ".join(f"{row[which]['h2d_bytes'] / GIB:.2f}" for which in ("steady", "first"))
    return f"| {row['name']} | {_reserved(row)} | {_seconds(row)} | {copied} | {_syncs(row)} | {_beside(row.get('roost'))} |"


def _beside(roost: Row | None) -> str:
    if roost is None:
        return "does not fit"
    if "failed" in roost:
        return str(roost["failed"])
    ahead_of = f"{roost['resident_blocks']} {roost['resident_policy']}, prefetch {roost['prefetch']}"
    return f"{ahead_of}: {roost['steady']['seconds']:.3f}, {roost['first']['seconds']:.3f} in {_reserved(roost)}"


def _reserved(row: Row) -> str:
    return f"{row['reserved_bytes'] / GIB:.2f}"


def _seconds(row: Row) -> str:
    parts = (
        f"{row[which]['seconds']:.3f} (× {row[which]['seconds'] / row[f'{which}_bound_s']:.2f})"
        for which in ("steady", "first")
    )
    return " | ".join(parts)


def _syncs(row: Row) -> str:
    return f"{row['steady']['syncs']:.0f}, {row['first']['syncs']:.0f}"
