"""Made-up facts for planner tests: components of chosen sizes, machines of chosen memory."""

from __future__ import annotations

from dataclasses import replace

from cards import card
from roost.facts.machine import HostFacts, Machine
from roost.facts.model import Component, Inventory, ModelProfile, Stack, StoredFile
from roost.facts.request import Choices, Workload
from roost.planner.by_rules import Question
from roost.units import GiB

CLASSES = {
    "transformer": ("diffusers", "WanTransformer3DModel"),
    "text_encoder": ("transformers", "UMT5EncoderModel"),
    "image_encoder": ("transformers", "CLIPVisionModel"),
    "vae": ("diffusers", "AutoencoderKLWan"),
    "controlnet": ("diffusers", "SD3ControlNetModel"),
}


def component(name: str, load_bytes: int, blocks: int = 0, position: int = 0, **changes: object) -> Component:
    """A component of ``blocks`` equal blocks that hold all but a tenth of it, or of none."""
    library, class_name = CLASSES.get(name.rstrip("_0123456789"), ("diffusers", "SomethingModel"))
    stacks = (Stack(name="blocks", block_bytes=(load_bytes * 9 // 10 // blocks,) * blocks),) if blocks else ()
    made = Component(
        name=name,
        library=library,
        class_name=class_name,
        position=position,
        files=(f"{name}/model.safetensors",),
        variant=None,
        bytes=load_bytes,
        bytes_by_dtype={"BF16": load_bytes},
        tensors=blocks,
        load_dtype="bfloat16",
        load_bytes=load_bytes,
        stacks=stacks,
        units=stacks,
        quantization=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def inventory(*components: Component, weightless: tuple[str, ...] = ("scheduler", "tokenizer")) -> Inventory:
    return Inventory(
        path="/models/made-up",
        layout="diffusers",
        pipeline="MadeUpPipeline",
        family=None,
        scalars={},
        components=components,
        weightless=weightless,
        absent=(),
        custom=(),
        files={each.files[0]: StoredFile(bytes=each.bytes, sha256="0" * 64) for each in components},
        fingerprint="1" * 64,
    )


def profile(**changes: object) -> ModelProfile:
    made = ModelProfile(
        key="made-up",
        title="Made up",
        task="video",
        match={},
        workload=Workload(width=832, height=480, frames=81, steps=50, batch=1, guidance=5.0),
        keep_resident_free_gib=120,
        keep_resident_groups=("vae",),
        dit_layerwise_prefetch={},
        fsdp=True,
        load_dtypes={},
        chunked_vae=False,
        guidance_argument="guidance_scale",
        role_extras={},
        frame_chunk=1,
        frames_per_s=16,
        sizes=(),
        plan_only=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def machine(free_gib: float, total_gib: float = 80, ram_gib: float = 128, headroom_gib: float = 1) -> Machine:
    gpu = card(int(total_gib * GiB), int(free_gib * GiB))
    ram = int(ram_gib * GiB)
    host = HostFacts(available_bytes=ram, pinnable_bytes=ram * 8 // 10, source="made up")
    return Machine(gpu=gpu, host=host, headroom_bytes=int(headroom_gib * GiB))


def question(inventory: Inventory, machine: Machine, choices: Choices | None = None, **changes: object) -> Question:
    made_up = profile()
    made = Question(
        inventory=inventory,
        profile=made_up,
        machine=machine,
        workload=made_up.workload,
        choices=choices or Choices(),
        role="monolithic",
        versions={"roost": "0"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]
