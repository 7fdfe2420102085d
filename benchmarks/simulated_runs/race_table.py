"""The race's results as a table for people; every figure in it is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

GIB = 2**30
AHEAD = 0.01  # a peer that is faster by more than this share is ahead
STEADY_GOAL, FIRST_GOAL = 1.02, 1.10  # times the bound
AGREE = 0.03  # between the planner's simulation and the simulated GPU
Row = dict[str, Any]


HEAD = """\
# The simulated race

Every figure is **simulated**: no GPU was there. PyTorch's CUDA build runs on libraries that stand for NVIDIA's; kernels
compute nothing, times are the planner's rates of a card. What each contestant calls, copies, waits for and reserves is
real; its own Python takes no time here. Written by `benchmarks/simulated_race.py`.

Seconds are of a first pass and of a steady one. × is over the bound: in steady state compute, launches, or what was
copied over the link, whichever takes longest; of a first pass, that each block must come in before it computes. What a
contestant had on the card before its first pass is added at the link's rate. *Foreseen* is the planner's own
simulation, fed with the same seconds and bytes of blocks. Beside each peer: Roost as the planner has it stream in no
more reserved memory (to 1 %): by blocks, or by the layers below them where two blocks take more. *On paper*: slots of
the largest block, no block resident, beside a ring of as many bytes and the residents that the planner would choose in
as many; by arithmetic, not raced.

- Rows in which Roost gave up blocks because the card was full say so, and count neither for the goals nor as foreseen.
- Qwen-Image's first pass uploads two tables of its own with blocking copies: these wait behind all weights that are
  enqueued by then, which is every block where all are to stay.
- mmgp 3.8.2 copies each streamed block twice: as its code stands, the block before never counts as loaded.
- SGLang's manager is given the UNet's two lists; SGLang itself runs no such model.
"""


def table(pairs: list[Row]) -> str:
    lines = [HEAD, *_summary(pairs)]
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
    for which, goal in (("steady", STEADY_GOAL), ("first", FIRST_GOAL)) if rows else ():
        ratios = sorted(row[which]["seconds"] / row[f"{which}_bound_s"] for row in rows)
        within = sum(ratio <= goal for ratio in ratios)
        within_goal = f"{within} of {len(ratios)} within {goal:.2f} × the bound"
        yield f"- Roost's {which} passes: {within_goal}, the slowest {ratios[-1]:.2f} ×."
    apart = [abs(_off(row, which)) for row in rows for which in ("steady", "first")]
    agreeing = f"{sum(share <= AGREE for share in apart)} of {len(apart)}"
    furthest = f"furthest apart {max(apart, default=0):.1%}"
    yield f"- Foreseen and simulated agree within {AGREE:.0%} in {agreeing} passes; {furthest}."
    compared = sum("steady" in row.get("roost", {}) for pair in pairs for row in pair["peers"])
    less = sum("failed" in row.get("roost", {}) for pair in pairs for row in pair["peers"])
    yield f"- {less} peers' rows reserve less than Roost needs by layers, and are compared with nothing."
    found = list(ahead(pairs))
    yield f"- {len(found)} passes of {compared} peers' rows are more than {AHEAD:.0%} ahead of Roost in as much memory."
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
    yield "On paper: " + "; ".join(map(_paper, pair["paper"])) + "."
    yield ""
    yield "| Roost | reserved GiB | steady s | first s | foreseen steady, first | copied GiB steady, first | syncs |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in pair["roost"]:
        yield _roost_row(row)
    yield ""
    yield "| peer | reserved GiB | steady s | first s | copied GiB | syncs | Roost there: steady s, first s |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in pair["peers"]:
        yield _peer_row(row)


def _paper(row: Row) -> str:
    slots = f"{row['slots']:.0f} slots of {row['bytes'] / GIB:.2f} GiB {row['slots_s']:.3f} s"
    return f"{slots}, ring {row['ring_s']:.3f}, residents {row['chosen_s']:.3f}"


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


def _foreseen(row: Row, which: str) -> str:
    return f"{row['foreseen'][f'{which}_s']:.3f} ({_off(row, which):+.1%})"


def _peer_row(row: Row) -> str:
    if "failed" in row:
        return f"| {row['name']} | {row['failed']} | | | | | |"
    copied = ", ".join(f"{row[which]['h2d_bytes'] / GIB:.2f}" for which in ("steady", "first"))
    cells = (row["name"], _reserved(row), _seconds(row), copied, _syncs(row), _beside(row.get("roost")))
    return f"| {' | '.join(cells)} |"


def _beside(roost: Row | None) -> str:
    if roost is None or "failed" in roost:
        return roost["failed"] if roost else "does not fit"
    noun = "layers, " if roost.get("leaf_level") else ""
    residents = f"{noun}{roost['resident_blocks']} {roost['resident_policy']}, prefetch {roost['prefetch']}"
    return f"{residents}: {roost['steady']['seconds']:.3f}, {roost['first']['seconds']:.3f} in {_reserved(roost)}"


def _reserved(row: Row) -> str:
    return f"{row['reserved_bytes'] / GIB:.2f}"


def _seconds(row: Row) -> str:
    passes = ((row[which]["seconds"], row[f"{which}_bound_s"]) for which in ("steady", "first"))
    return " | ".join(f"{seconds:.3f} (× {seconds / bound_s:.2f})" for seconds, bound_s in passes)


def _syncs(row: Row) -> str:
    return f"{row['steady']['syncs']:.0f}, {row['first']['syncs']:.0f}"
