"""Every tiny pipeline directory is real: it loads, runs and gives the same picture twice."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors import safe_open

from tiny_models import FAMILIES, build, default_call

_MAX_BYTES = 5 * 10**6


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    built: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in built:
            built[name] = build(name, tmp_path_factory.mktemp("model") / name)
        return built[name]

    return of


def _generate(directory: Path, name: str, **changed: object) -> torch.Tensor:
    pipeline = DiffusionPipeline.from_pretrained(directory)
    pipeline.set_progress_bar_config(disable=True)
    call = default_call(name) | changed
    generator = torch.Generator().manual_seed(0)
    output = pipeline(**call, output_type="pt", generator=generator, return_dict=False)[0]
    return output if isinstance(output, torch.Tensor) else torch.stack(list(output))


@pytest.mark.dealt(3)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_varied_picture_and_another_prompt_another(
    name: str, model_directory: Callable[[str], Path]
) -> None:
    fox, again, city = (_generate(model_directory(name), name, prompt=each) for each in ("a fox", "a fox", "a city"))
    assert torch.isfinite(fox).all()
    assert fox.std() > 0.02
    assert torch.equal(fox, again)
    assert not torch.equal(fox, city)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tiny_model_is_tiny(name: str, model_directory: Callable[[str], Path]) -> None:
    files = [path for path in model_directory(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < _MAX_BYTES


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    directories = [build("wan2.2", tmp_path / copy) for copy in ("one", "two")]
    weights = Path("transformer/diffusion_pytorch_model.safetensors")
    one, two = ((directory / weights).read_bytes() for directory in directories)
    assert one == two


def test_weights_are_stored_in_the_asked_dtype(tmp_path: Path) -> None:
    directory = build("flux", tmp_path / "flux", dtype=torch.bfloat16)
    for path in directory.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118 - no mapping


def test_two_steps_call_both_wan_experts(model_directory: Callable[[str], Path]) -> None:
    pipeline = DiffusionPipeline.from_pretrained(model_directory("wan2.2"))
    called: list[str] = []
    for expert in ("transformer", "transformer_2"):
        getattr(pipeline, expert).register_forward_hook(lambda *_, expert=expert: called.append(expert))
    pipeline(**default_call("wan2.2"), output_type="latent")
    assert set(called) == {"transformer", "transformer_2"}
