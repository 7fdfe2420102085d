"""Shards of components: which rows a rank reads, what is frozen, and that nothing but FSDP moves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

import roost
from given_files_matrix import FORMATS, made_world
from live_pipelines import request_for
from plans import component_plan, plan_for
from roost.errors import OutOfMemory, UsageError
from roost.facts.machine import Ranks
from roost.facts.model import StoredFile
from roost.facts.request import Choices
from roost.pipelines.internals.of_torch import CONVERT, forward_hooks, forward_pre_hooks
from roost.plan import PlanDocument
from roost.probes.machine.ranks import own_device, read_ranks
from roost.profiles.class_facts import load_class_facts
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.engine.initial_placement import Placer
from roost.residency.hold.attach import Held
from roost.residency.run.generate import generate
from roost.residency.run.loader import Source, load_held
from roost.residency.sharded.component import fill, split
from roost.residency.sharded.load import ShardSource, load_shards
from roost.residency.sharded.rows import rows_of
from roost.residency.sharded.values import FileRows, LoadedRows
from roost.residency.weights.mapped_masters import stored_tensors
from roost.residency.weights.transfers import Transfers
from test_loader import read_pipeline
from test_planner import WAN, plan_of
from tiny_models import build
from worlds import component

MIB, GIB = 1024**2, 1024**3


@given(count=st.integers(0, 40), world=st.integers(1, 9))
def test_a_rank_has_the_rows_of_its_chunk(count: int, world: int) -> None:
    chunks = torch.arange(count).chunk(world) if count else ()
    for rank in range(world):
        expected = chunks[rank].tolist() if rank < len(chunks) else []
        assert list(range(*rows_of(rank, world, count))) == expected


def test_files_give_rows_whatever_file_has_them(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(21.0).reshape(7, 3), "b": torch.tensor(5.0), "c": torch.arange(4)}
    for name, tensor in tensors.items():
        save_file({name: tensor}, tmp_path / f"{name}.safetensors")
    places = {name: stored_tensors(tmp_path / f"{name}.safetensors")[0] for name in tensors}
    with FileRows(places) as rows:
        assert torch.equal(rows.rows("a", 4, 7), tensors["a"][4:7])
        assert torch.equal(rows.rows("b", 0, 1), tensors["b"])
        assert torch.equal(rows.rows("c", 0, 2), tensors["c"][:2])
        assert torch.equal(rows.rows("a", 0, 4), tensors["a"][:4])


# A process of several, of which there is only this one.


@contextmanager
def rank_of(rank: int, world: int) -> Iterator[DeviceMesh]:
    backend, store = ("fake", FakeStore()) if world > 1 else ("gloo", distributed.HashStore())
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world)
    try:
        yield DeviceMesh.from_group(distributed.group.WORLD, "cpu")
    finally:
        distributed.destroy_process_group()


class Mixed(torch.nn.Module):
    """Blocks of seven rows in two dtypes, a weight with two names, and one without rows."""

    def __init__(self) -> None:
        super().__init__()
        block = torch.nn.Sequential(torch.nn.Linear(3, 7, dtype=torch.bfloat16), torch.nn.LayerNorm(7))
        self.blocks = torch.nn.ModuleList([block])
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.embed, self.out = torch.nn.Embedding(7, 5), torch.nn.Linear(5, 7, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("table", torch.arange(3.0))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_keeps_its_rows_frozen_in_their_dtypes(rank: int) -> None:
    module, whole = Mixed(), Mixed()
    whole.load_state_dict(module.state_dict())
    plan = component_plan("transformer", module, strategy="fsdp")
    with rank_of(rank, 2) as mesh, LoadedRows(whole) as values, EmulatedDevice(MIB) as device:
        split(module, plan, mesh)
        assert all(each.is_meta for each in module.parameters())
        fill(module, values, device, mesh)
        for name, own in module.named_parameters():
            wanted = whole.get_parameter(name).detach()
            assert not own.requires_grad
            assert own.shape == wanted.shape
            if name == "scale":
                assert torch.equal(own, wanted)
                continue
            assert isinstance(own, DTensor)
            assert torch.equal(own.to_local(), wanted[slice(*rows_of(rank, 2, 7))])
        assert module.out.weight is module.embed.weight
        assert torch.equal(module.table, whole.table)
        assert 0 < device.used_bytes < 4096


# Components of a pipeline.


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wan2.2", tmp_path_factory.mktemp("shards") / "wan", torch.float32)


def plan_of_shards(
    directory: Path, others: str = "resident", names: tuple[str, ...] = ("transformer", "transformer_2")
) -> PlanDocument:
    sharded = {name: {"strategy": "fsdp"} for name in names}
    plan = plan_for(read_pipeline(directory, torch_dtype=torch.bfloat16), others, components=sharded)
    unread = StoredFile(bytes=0, sha256="0" * 64)
    files = {str(path.relative_to(directory)): unread for path in directory.rglob("*.safetensors")}
    return plan.model_copy(update={"model": plan.model.model_copy(update={"files": files})})


def load(plan: PlanDocument, directory: Path, mesh: DeviceMesh | None, budget_bytes: int = GIB) -> Held:
    source = Source(mesh=mesh, class_facts=load_class_facts())
    return load_held(plan, directory, EmulatedDevice(budget_bytes), source=source)


def test_what_fsdp_holds_runs_to_the_same_bits_and_is_not_moved(wan: Path) -> None:
    plan = plan_of_shards(wan)
    with load(plan_for(read_pipeline(wan, torch_dtype=torch.bfloat16)), wan, None) as held:
        wanted = generate(held, request_for("wan2.2")).digest
    with rank_of(0, 1) as mesh, load(plan, wan, mesh) as held:
        assert held.changes == []
        assert set(held.runtime.components) == {"text_encoder", "vae"}
        transformer = held.pipeline.transformer
        assert {each.dtype for each in transformer.parameters()} == {torch.bfloat16, torch.float32}
        addresses = [each.to_local().data_ptr() for each in transformer.parameters()]
        hooks = [(len(forward_hooks(each)), len(forward_pre_hooks(each))) for each in transformer.blocks]
        generation = generate(held, request_for("wan2.2"))
        assert generation.digest == wanted
        assert [each.component for each in generation.stages] == ["text_encoder", "transformer", "transformer_2", "vae"]
        assert [each.to_local().data_ptr() for each in transformer.parameters()] == addresses
        assert hooks == [(1, 1)] * len(hooks)  # FSDP's own
        assert not any(CONVERT in vars(part) or "to" in vars(part) for part in transformer.modules())


def test_encoders_that_give_hidden_states_give_them_sharded(tmp_path: Path) -> None:
    """A canary, too: transformers finds by a class's name which can, and FSDP makes classes of other names."""
    directory = build("sdxl", tmp_path / "sdxl", torch.float32)
    encoders = ("text_encoder", "text_encoder_2")
    with load(plan_for(read_pipeline(directory, torch_dtype=torch.bfloat16)), directory, None) as held:
        wanted = generate(held, request_for("sdxl")).digest
    with rank_of(0, 1) as mesh, load(plan_of_shards(directory, names=encoders), directory, mesh) as held:
        assert not set(encoders) & set(held.runtime.components)
        assert generate(held, request_for("sdxl")).digest == wanted


def test_a_rank_reads_no_more_of_the_files_than_its_rows(wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    rows = FileRows.rows

    def counted(self: FileRows, name: str, first: int, end: int) -> torch.Tensor:
        found = rows(self, name, first, end)
        read.append(found.nbytes)
        return found

    monkeypatch.setattr(FileRows, "rows", counted)
    plan = plan_of_shards(wan)
    stored = sum(each.bytes for each in stored_tensors(next((wan / "transformer").glob("*.safetensors"))))
    with rank_of(3, 4) as mesh:
        held = load(plan, wan, mesh)
        assert sum(read) <= 2 * stored / 4  # of two transformers
        assert max(read) < stored / 8
        held.close()


def test_values_that_the_files_lack_are_loaded_whole_which_is_said(wan: Path) -> None:
    pipeline = read_pipeline(wan)
    plan = component_plan("transformer", pipeline.transformer, strategy="fsdp")
    source = ShardSource(shell=lambda: read_pipeline(wan).transformer, load=lambda: pipeline.transformer, files=())
    wanted = pipeline.transformer.proj_out.weight.detach().clone()
    with rank_of(0, 1) as mesh, EmulatedDevice(GIB) as device:
        transfers = Transfers(device)
        made = load_shards("transformer", plan, source, mesh, Placer(transfers), transfers)
        assert torch.equal(made.module.proj_out.weight.to_local(), wanted)
        assert transfers.changes == [
            "transformer: every rank loaded it whole before it was sharded, because its files have no"
            " 'scale_shift_table' as it loads"
        ]
        transfers.close()


def test_shards_beyond_the_budget_are_out_of_memory(wan: Path) -> None:
    with rank_of(0, 1) as mesh, pytest.raises(OutOfMemory, match="placing transformer"):
        load(plan_of_shards(wan, "snapshot-offload"), wan, mesh, budget_bytes=100_000)


# What is refused before anything runs.


@pytest.mark.parametrize("choices", [Choices(fsdp=True, num_gpus=2), Choices(mode="speed", num_gpus=2)])
@pytest.mark.parametrize("packed", [{"quantization": "torchao"}, {"quantization": "gguf"}])
def test_packed_weights_are_not_sharded(choices: Choices, packed: dict[str, Any]) -> None:
    transformer = component("transformer", 28 * GIB, blocks=40, **packed)
    with pytest.raises(UsageError, match=r"the weights of transformer are packed, and FSDP can't split them; .*fsdp="):
        plan_of(choices=choices, components=(transformer, *WAN[1:]))


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("GGUF Q8_0", "the weights of transformer are packed, and FSDP can't split them"),
        ("Comfy fp8 scaled, new", "the weights of transformer are packed, and FSDP can't split them"),
        ("plain", "the weights of transformer come from a file of their own, and FSDP splits those of the model"),
    ],
)
def test_files_of_their_own_are_not_sharded(form: str, why: str, tmp_path: Path) -> None:
    made = made_world("wan2.1", tmp_path / "wan")
    file = FORMATS[form](made, "wan2.1", tmp_path)
    with pytest.raises(UsageError, match=f"^{why}; plan it on one GPU with fsdp=False.$"):
        roost.make_plan(
            made.folder, gpu="emulated", vram="4GiB", num_gpus=2, fsdp=True, policy="rules", files={"transformer": file}
        )


def test_torchrun_s_environment_says_which_process_this_is() -> None:
    assert read_ranks({"RANK": "3"}) is None
    alone = read_ranks({"RANK": "1", "WORLD_SIZE": "2"})
    assert alone == Ranks(rank=1, world=2, local_rank=1, local_world=2)
    of_two_hosts = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert read_ranks(of_two_hosts) == Ranks(rank=3, world=4, local_rank=1, local_world=2)


@pytest.mark.parametrize(
    ("visible", "own"),
    [({}, "1"), ({"CUDA_VISIBLE_DEVICES": "4, 7"}, "7"), ({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, "GPU-b")],
)
def test_a_rank_takes_the_visible_gpu_of_its_number(visible: dict[str, str], own: str) -> None:
    assert own_device(Ranks(rank=1, world=2, local_rank=1, local_world=2), visible) == own


def test_fewer_gpus_than_processes_are_refused() -> None:
    with pytest.raises(UsageError, match="shows 1 GPUs to 2 processes"):
        own_device(Ranks(rank=1, world=2, local_rank=1, local_world=2), {"CUDA_VISIBLE_DEVICES": "0"})
