"""Host memory while a component loads: its masters and one file, never a second copy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel

from roost.residency.weights import host_masters
from roost.residency.weights.census import Entry
from roost.residency.weights.staging import BUFFER_BYTES

MIB = 1024**2


def saved_transformer(directory: Path, blocks: int, shard_bytes: int) -> Path:
    """A FLUX transformer with 31 MiB a block in bfloat16, in several files."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(
            num_layers=1, num_single_layers=blocks, num_attention_heads=8, attention_head_dim=128,
            joint_attention_dim=64, pooled_projection_dim=64,
        )  # fmt: skip
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    for weight in model.parameters():
        weight.data.fill_(0.01)
    model.save_pretrained(directory / "transformer", max_shard_size=shard_bytes)
    return directory


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("blocks", "shard_mib", "dtype", "when"),
    [
        pytest.param(5, 64, "float32", "late", id="small, cast, late"),
        pytest.param(5, 64, "float32", "at first", marks=pytest.mark.slow, id="small, cast"),
        pytest.param(5, 64, "bfloat16", "at first", marks=pytest.mark.slow, id="small"),
        pytest.param(40, 300, "float32", "late", marks=pytest.mark.slow, id="over 1 GB, cast, late"),
        pytest.param(40, 300, "float32", "at first", marks=pytest.mark.slow, id="over 1 GB, cast"),
        pytest.param(40, 300, "bfloat16", "at first", marks=pytest.mark.slow, id="over 1 GB"),
    ],
)
def test_loading_grows_by_the_masters_and_one_file(
    blocks: int, shard_mib: int, dtype: str, when: str, tmp_path: Path
) -> None:
    grown, masters, shell = grown_by(saved_transformer(tmp_path, blocks, shard_mib * MIB), dtype, when)
    assert shell < 0.1 * masters  # of what comes late nothing is there before
    assert masters > blocks * 30 * MIB
    assert grown <= 1.1 * masters + shard_mib * MIB


def grown_by(model_dir: Path, dtype: str, when: str) -> list[int]:
    """What a child says of its host memory; see there."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "scripts"), *filter(None, [os.environ.get("PYTHONPATH")])]
    printed = subprocess.run(
        [sys.executable, str(here / "load_in_child.py"), str(model_dir), dtype, when],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return list(map(int, printed.stdout.split()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", [pytest.param("bfloat16", marks=pytest.mark.slow), "float32"])
def test_loading_of_a_given_file_grows_by_the_masters_and_two_bounce_buffers(dtype: str, tmp_path: Path) -> None:
    grown, masters, _ = grown_by(saved_transformer(tmp_path, 5, 4096 * MIB), dtype, "of one given file")
    assert grown <= masters + 2 * BUFFER_BYTES


def test_a_master_is_filled_where_its_memory_can_not_be_claimed_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(512, 512)
    for advice in (host_masters._POPULATE_WRITE, 10_000):
        monkeypatch.setattr(host_masters, "_POPULATE_WRITE", advice)
        master = host_masters.Master(host_masters.lay_out([Entry([torch.ones(3)]), Entry([weight])]))
        master.fill(1, weight)
        assert torch.equal(master.views[1], weight)
