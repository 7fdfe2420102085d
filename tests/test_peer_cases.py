"""Cases that the tests of other offloaders cover, and that no other test here does; docs/peer-cases.md lists all."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FluxImg2ImgPipeline

import roost
from live_pipelines import STRATEGIES, bare_digest, held_by, live_pipeline, own_pipeline, request_for
from plans import LAYERWISE, plan_for
from roost.errors import UsageError
from roost.residency.run.generate import generate, tensor_digest
from toy_pipelines import WIDTH, state

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield


def test_every_test_that_the_table_names_exists() -> None:
    table = (TESTS.parent / "docs" / "peer-cases.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", table)
    assert len(named) > 40
    for module, test in named:
        assert f"def {test}(" in (TESTS / f"{module}.py").read_text(encoding="utf-8"), (module, test)
    cases = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith(("| case", "| ---"))]
    assert cases
    assert all("::test_" in line for line in cases)


def test_peaks_grow_with_what_stays() -> None:
    pipeline, peaks = live_pipeline("flux"), []
    for strategy in [
        {**LAYERWISE, "prefetch": 1},
        {**LAYERWISE, "prefetch": 2},
        {**LAYERWISE, "prefetch": 2, "resident_blocks": 1},
        {"strategy": "snapshot-offload"},
        {"strategy": "resident"},
    ]:
        with held_by(pipeline, plan_for(pipeline, strategy)) as held:
            peaks.append(max(each.peak_bytes for each in generate(held, request_for("flux")).stages))
    assert peaks == sorted(set(peaks))


class Scale(torch.nn.Module):
    """A block of one parameter and no module."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.randn(WIDTH))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        return state * self.scale


class Optional(torch.nn.Module):
    """A block with a part that only some calls use."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, state: torch.Tensor, extra: bool = False) -> torch.Tensor:
        state = torch.tanh(self.always(state))
        return self.sometimes(state) if extra else state


class Mixed(torch.nn.Module):
    """Stacks of bare parameters, of plain layers, of nested containers and of optional parts, and a lone layer."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = torch.nn.LayerNorm(WIDTH)
        self.scales = torch.nn.ModuleList(Scale() for _ in range(3))
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH) for _ in range(3))
        inner = (torch.nn.ModuleDict({"a": torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH))}) for _ in range(3))
        self.nested = torch.nn.ModuleList(torch.nn.ModuleList([each]) for each in inner)
        self.optional = torch.nn.ModuleList(Optional() for _ in range(3))

    def forward(self, state: torch.Tensor, extra: bool = False) -> torch.Tensor:
        for block in self.optional:  # not in the order in which they were made
            state = block(state, extra)
        for scale, norm in zip(self.scales, self.norms, strict=True):
            state = norm(scale(state))
        for outer in self.nested:
            state = torch.tanh(outer[0]["a"](state))
        return self.alone(state)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_odd_containers_and_parts_that_come_and_go_are_exact(strategy: str) -> None:
    torch.manual_seed(0)
    transformer = Mixed().eval().requires_grad_(False)
    pipeline = SimpleNamespace(components={"transformer": transformer}, transformer=transformer)
    wanted = {extra: transformer(state(), extra) for extra in (False, True)}
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])):
        for extra in (False, True, False, False, True):
            assert torch.equal(transformer(state(), extra), wanted[extra])


@pytest.mark.parametrize("strategy", ["layerwise-offload", "layerwise-offload, half resident"])
def test_every_blocks_output_is_the_same_in_every_pass(strategy: str) -> None:
    pipeline = live_pipeline("flux")
    blocks = [*pipeline.transformer.transformer_blocks, *pipeline.transformer.single_transformer_blocks]
    seen: list[list[str]] = []
    handles = [
        each.register_forward_hook(lambda _m, _i, out: seen[-1].extend(map(tensor_digest, out))) for each in blocks
    ]
    try:
        seen.append([])
        bare_digest.__wrapped__("flux")
        with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
            for _ in range(3):
                seen.append([])
                generate(held, request_for("flux"))
    finally:
        for handle in handles:
            handle.remove()
    assert len(seen[0]) >= 2 * len(blocks)
    assert seen[1:] == seen[:1] * 3


def test_a_component_that_is_to_stay_stays_while_others_stream() -> None:
    pipeline = live_pipeline("flux")
    plan = plan_for(pipeline, LAYERWISE, components={"vae": {"strategy": "resident"}})
    with held_by(pipeline, plan) as held:
        vae = held.runtime.components["vae"]
        staying = vae.device_bytes
        assert staying > 0
        assert [generate(held, request_for("flux")).digest for _ in range(2)] == [bare_digest("flux")] * 2
        assert vae.device_bytes == staying
        held.runtime.end_call()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_encode_prompt_works_by_itself(strategy: str) -> None:
    pipeline = live_pipeline("flux")
    wanted = pipeline.encode_prompt(prompt="a fox", prompt_2=None, max_sequence_length=64)
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])):
        for _ in range(2):
            found = pipeline.encode_prompt(prompt="a fox", prompt_2=None, max_sequence_length=64)
            assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_another_pipeline_over_held_components_is_exact(strategy: str) -> None:
    pipeline = own_pipeline("flux")
    call = {**request_for("flux").more, "prompt": "a fox", "strength": 0.9, "num_inference_steps": 3}
    call |= {"image": torch.full((1, 3, 64, 64), 0.5), "output_type": "pt"}

    def picture() -> torch.Tensor:
        other = FluxImg2ImgPipeline.from_pipe(pipeline)
        other.set_progress_bar_config(disable=True)
        return other(**call, generator=torch.Generator().manual_seed(0)).images

    wanted = picture()
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        assert torch.equal(picture(), wanted)
        assert generate(held, request_for("flux")).digest == bare_digest("flux")
        assert torch.equal(picture(), wanted)
    assert torch.equal(picture(), wanted)


def test_a_tiled_decode_is_that_of_the_bare_tiled_vae() -> None:
    pipeline = own_pipeline("flux")
    pipeline.vae.enable_tiling()
    pipeline.vae.tile_sample_min_size, pipeline.vae.tile_latent_min_size = 32, 4
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = pipeline.vae.decode(latents).sample
    for strategy in STRATEGIES.values():
        with held_by(pipeline, plan_for(pipeline, strategy)):
            assert torch.equal(pipeline.vae.decode(latents).sample, wanted)


@pytest.mark.parametrize("strategy", ["layerwise-offload", "snapshot-offload"])
def test_an_adapter_counts_while_it_is_there(strategy: str) -> None:
    peft = pytest.importorskip("peft")
    pipeline = own_pipeline("flux")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipeline.transformer.add_adapter(config)
    pipeline.transformer.eval().requires_grad_(False)
    adapted = bare_output(pipeline)
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        assert generate(held, request_for("flux")).digest == adapted != bare_digest("flux")
    pipeline.transformer.delete_adapters("default")
    with held_by(pipeline, plan_for(pipeline, STRATEGIES[strategy])) as held:
        assert generate(held, request_for("flux")).digest == bare_digest("flux")


def bare_output(pipeline: Any) -> str:
    request = request_for("flux")
    generator = torch.Generator("cpu").manual_seed(0)
    call = {"generator": generator, "output_type": "pt", "return_dict": False, **request.more}
    return tensor_digest(pipeline(prompt=request.prompt, **call)[0])


def test_weights_that_are_cast_for_each_use_stay_resident_and_exact() -> None:
    pipeline = own_pipeline("flux")
    pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    cast = bare_output(pipeline)
    with roost.attach(pipeline, vram="8GiB", ram="8GiB", size="64x64", steps=2) as held:
        planned = held.plan.components["transformer"]
        assert (planned.strategy, planned.decided_by) == ("resident", "live module")
        assert "casts its weights around every use" in planned.why
        assert [generate(held, request_for("flux")).digest for _ in range(2)] == [cast] * 2 != [bare_digest("flux")] * 2
    assert bare_output(pipeline) == cast


def test_an_option_that_casting_leaves_no_choice_of_is_refused_by_the_casting() -> None:
    pipeline = own_pipeline("flux")
    pipeline.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    small = {"vram": "8GiB", "ram": "8GiB", "size": "64x64", "steps": 2}
    for typed in ("transformer=layerwise-offload,resident_blocks=1", "dit=snapshot-offload"):
        with pytest.raises(UsageError, match=rf"^set='{typed}' can't .* resident\. Layerwise casting is on") as refused:
            roost.attach(pipeline, set=typed, **small)
        assert "enable_layerwise_casting" in str(refused.value)
    with roost.attach(pipeline, set=("transformer=resident", "vae=snapshot-offload"), **small) as held:
        assert held.plan.components["transformer"].strategy == "resident"
    with roost.attach(pipeline, set="vae=snapshot-offload", **small) as held:
        assert held.plan.policy.choices == ["--set vae=snapshot-offload"]
