"""How PyTorch's allocator is set in the processes that Roost starts; what someone has set is never changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from roost.allocator_settings import allocator_settings, segments_grow
from roost.facts.machine import allocator_limit
from roost.units import GiB
from worlds import machine

linux = pytest.mark.skipif(sys.platform != "linux", reason="PyTorch has such segments on Linux alone")
_SHOW = (
    "import os, sys; import roost.cli as cli; cli._run = lambda: 0\ntry: cli.main()\nexcept SystemExit: pass"
    "\nprint(os.environ.get('PYTORCH_ALLOC_CONF'))"
)


@linux
def test_segments_grow_unless_someone_has_set_the_allocator() -> None:
    assert segments_grow(allocator_settings({}))
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        assert allocator_settings({name: "max_split_size_mb:128"}) == {}
        assert not segments_grow({name: "max_split_size_mb:128"})


@linux
@pytest.mark.parametrize("typed", [None, "expandable_segments:False"])
def test_the_command_line_sets_it_before_anything_reads_it(typed: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTORCH_ALLOC_CONF"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    environment |= {} if typed is None else {"PYTORCH_ALLOC_CONF": typed}
    ran = subprocess.run([sys.executable, "-c", _SHOW], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == (typed or "expandable_segments:True")


@pytest.mark.parametrize("headroom_gib", [0, 1, 6])
def test_the_allocator_may_reserve_the_budget_and_half_of_the_headroom(headroom_gib: int) -> None:
    made = machine(24, headroom_gib=headroom_gib)
    assert made.limit_bytes == allocator_limit(made.budget_bytes, made.headroom_bytes)
    assert made.limit_bytes - made.budget_bytes == headroom_gib * GiB // 2
