"""LoRAs are fused before anything is placed: the bits of diffusers' own fuse, under every strategy."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from live_pipelines import STRATEGIES, held_by, live_pipeline, request_for
from plans import LAYERWISE, plan_for
from roost.api.requests.given_files import read_loras
from roost.cli.app import run
from roost.errors import InvalidFile, UsageError
from roost.facts.loras import LoraFile
from roost.pipelines.quiet import quiet_libraries
from roost.plan import PlanDocument
from roost.residency.device.emulated import EmulatedDevice
from roost.residency.hold.attach import Held
from roost.residency.run.generate import generate
from roost.residency.run.loader import Source, load_held
from roost.residency.run.loras import LoraLoader
from tiny_loras import lora_file
from tiny_models import build

pytest.importorskip("peft", reason="LoRAs need peft: pip install 'roost[lora]'")

ATTENTION = ("to_q", "to_v")
TARGETS = {
    "wan2.2": {"transformer": ATTENTION},
    "flux": {"transformer": ATTENTION, "text_encoder": ("q_proj",)},
    "sdxl": {"unet": ATTENTION, "text_encoder": ("q_proj",)},
}
Saved = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Directories of tiny pipelines by family, each with ``lora.safetensors`` beside its model."""

    @functools.cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("lora")
        lora_file(folder / "lora.safetensors", live_pipeline(name), TARGETS[name])
        build(name, folder / "model")
        return folder

    return make


def _fused_by_diffusers(folder: Path, name: str, scale: float, components: list[str]) -> str:
    with quiet_libraries():
        pipeline = DiffusionPipeline.from_pretrained(folder / "model")
        pipeline.load_lora_weights(folder, weight_name="lora.safetensors")
        pipeline.fuse_lora(components=components, lora_scale=scale)
        pipeline.unload_lora_weights()
    with held_by(pipeline, plan_for(pipeline)) as held:  # resident, on weights that lie aligned
        return generate(held, request_for(name)).digest


def _loaded(plan: PlanDocument, folder: Path, *loras: LoraFile) -> tuple[Held, LoraLoader]:
    loader = LoraLoader(plan, loras)
    return load_held(plan, folder / "model", EmulatedDevice(1024**3), source=Source(load=loader)), loader


def _lora(folder: Path, scale: float = 1.0, component: str | None = None) -> LoraFile:
    return LoraFile(path=folder / "lora.safetensors", scale=scale, component=component, sha256="")


def _digest(name: str, strategy: Any, folder: Path, *loras: LoraFile) -> str:
    held, _ = _loaded(plan_for(live_pipeline(name), strategy), folder, *loras)
    with held:
        return generate(held, request_for(name)).digest


@pytest.mark.dealt(3)
@pytest.mark.parametrize("name", TARGETS)
def test_a_fused_lora_gives_the_bits_of_diffusers_own_fuse_on_a_resident_pipeline(name: str, saved: Saved) -> None:
    folder, lora = saved(name), _lora(saved(name), 0.7)
    wanted = _fused_by_diffusers(folder, name, 0.7, list(TARGETS[name]))
    assert _digest(name, LAYERWISE, folder, lora) == wanted
    assert _digest(name, LAYERWISE, folder) != wanted


@pytest.fixture(scope="module")
def resident_digests(saved: Saved) -> tuple[str, str]:
    """With the LoRA and without, everything resident."""
    folder = saved("wan2.2")
    return _digest("wan2.2", "resident", folder, _lora(folder)), _digest("wan2.2", "resident", folder)


@pytest.mark.dealt(3)
@pytest.mark.parametrize("strategy", [each for each in STRATEGIES if each != "resident"])
def test_a_fused_lora_gives_the_same_bits_under_every_strategy(
    strategy: str, saved: Saved, resident_digests: tuple[str, str]
) -> None:
    folder = saved("wan2.2")
    fused, plain = resident_digests
    assert _digest("wan2.2", STRATEGIES[strategy], folder, _lora(folder)) == fused != plain


def test_the_component_that_is_named_gets_the_lora_and_no_other(saved: Saved) -> None:
    digests = set()
    for component in ("transformer", "transformer_2"):
        folder = saved("wan2.2")
        held, loader = _loaded(plan_for(live_pipeline("wan2.2")), folder, _lora(folder, component=component))
        with held:
            digests.add(generate(held, request_for("wan2.2")).digest)
        assert [each.components for each in loader.applied] == [(component,)]
        for name in ("transformer", "transformer_2"):
            module, plain = getattr(held.pipeline, name), getattr(live_pipeline("wan2.2"), name)
            same = all(torch.equal(tensor, plain.state_dict()[key]) for key, tensor in module.state_dict().items())
            assert same is (name != component)
    assert len(digests) == 2


def test_a_lora_for_several_components_can_go_into_one_of_them(saved: Saved) -> None:
    folder = saved("flux")
    wanted = _fused_by_diffusers(folder, "flux", 1.0, ["text_encoder"])
    assert _digest("flux", LAYERWISE, folder, _lora(folder, component="text_encoder")) == wanted


def test_nothing_of_the_adapters_stays_and_blocks_are_those_of_the_plan(saved: Saved) -> None:
    folder = saved("flux")
    held, loader = _loaded(plan_for(live_pipeline("flux"), LAYERWISE), folder, _lora(folder))
    with held:
        modules = {name for name, _ in held.pipeline.transformer.named_modules()}
        assert modules == {name for name, _ in live_pipeline("flux").transformer.named_modules()}
        assert not hasattr(held.pipeline.transformer, "peft_config")
    assert [(each.components, each.unused) for each in loader.applied] == [(("transformer", "text_encoder"), 0)]


def test_layers_that_fit_nothing_are_counted(saved: Saved, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved("wan2.2") / "lora.safetensors")
    more = {key.replace("blocks.0.", "blocks.77."): tensor for key, tensor in tensors.items() if "blocks.0." in key}
    save_file({**tensors, **{key: tensor.clone() for key, tensor in more.items()}}, tmp_path / "lora.safetensors")
    shutil.copytree(saved("wan2.2") / "model", tmp_path / "model")
    held, loader = _loaded(plan_for(live_pipeline("wan2.2")), tmp_path, _lora(tmp_path))
    held.close()
    layers = len(tensors) // 2
    assert [(each.layers, each.unused) for each in loader.applied] == [(layers + len(more) // 2, len(more) // 2)]


def test_another_model_s_lora_is_refused_in_one_line(saved: Saved, tmp_path: Path) -> None:
    plan = plan_for(live_pipeline("wan2.2"))
    lora = _lora(saved("flux"))
    with pytest.raises(InvalidFile, match="does not fit WanPipeline") as caught:
        load_held(
            plan, saved("wan2.2") / "model", EmulatedDevice(1024**3), source=Source(load=LoraLoader(plan, [lora]))
        )
    assert "\n" not in str(caught.value)


def _parsed(folder: Path, text: str) -> tuple[str | None, str, float]:
    (lora,) = read_loras([text], plan_for(live_pipeline("wan2.2")).components)
    return lora.component, str(lora.path), lora.scale


def test_component_path_and_scale_are_told_apart_also_in_odd_names(saved: Saved, tmp_path, monkeypatch) -> None:
    plain = "lora.safetensors"
    for name in (plain, "a:b.safetensors", "x=y.safetensors", "style:0.5.safetensors"):
        shutil.copy(saved("wan2.2") / "lora.safetensors", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for text, wanted in {
        plain: (None, plain, 1.0),
        f"{plain}:0.5": (None, plain, 0.5),
        f"{plain}:-1e-1": (None, plain, -0.1),
        f"transformer_2={plain}:.25": ("transformer_2", plain, 0.25),
        "a:b.safetensors": (None, "a:b.safetensors", 1.0),
        "a:b.safetensors:2": (None, "a:b.safetensors", 2.0),
        "x=y.safetensors": (None, "x=y.safetensors", 1.0),
        "transformer=x=y.safetensors:3": ("transformer", "x=y.safetensors", 3.0),
        "style:0.5.safetensors": (None, "style:0.5.safetensors", 1.0),
        f"{tmp_path}/{plain}:0.5": (None, f"{tmp_path}/{plain}", 0.5),
    }.items():
        assert _parsed(tmp_path, text) == wanted, text


def test_a_drive_letter_is_no_scale(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where this is a plain name
    for text, path, scale in (
        (r"C:\loras\fox.safetensors", r"C:\loras\fox.safetensors", 1.0),
        (r"C:\loras\fox.safetensors:0.5", r"C:\loras\fox.safetensors", 0.5),
    ):
        shutil.copy(saved("wan2.2") / "lora.safetensors", tmp_path / path)
        assert _parsed(tmp_path, text) == (None, path, scale)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("lora.bin", b"\x80\x02}", "not a .safetensors file"),
        ("lora.SAFETENSORS", b"\x80\x02}", "not a .safetensors file"),
        ("lora.safetensors", b"\x80\x02}q\x00.", "."),
        ("lora.safetensors", b"", "is empty"),
        (None, b"", "can't be opened"),
    ],
)
def test_what_is_no_safetensors_file_is_never_opened(name: str | None, content: bytes, said: str, tmp_path) -> None:
    path = tmp_path / (name or "absent.safetensors")
    if name is not None:
        path.write_bytes(content)
    with pytest.raises((UsageError, InvalidFile), match=said):
        read_loras([str(path)], plan_for(live_pipeline("wan2.2")).components)


def test_without_peft_a_lora_says_what_to_install(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roost.api.requests.given_files.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'roost\[lora\]'"):
        read_loras([str(saved("wan2.2") / "lora.safetensors")], plan_for(live_pipeline("wan2.2")).components)


def test_the_record_of_a_run_says_which_loras_were_fused(saved: Saved, tmp_path: Path, capsys) -> None:
    folder, plan = saved("wan2.2"), tmp_path / "plan.yaml"
    options = ("--gpu", "emulated", "--vram", "64MiB", "--headroom", "0", "--size", "64x64", "--frames", "5")
    assert run(["plan", str(folder / "model"), *options, "--steps", "2", "--policy", "rules", "-o", str(plan)]) == 0
    before = plan.read_bytes()
    lora = f"{folder / 'lora.safetensors'}"
    capsys.readouterr()
    words = [
        "run",
        str(plan),
        "--prompt",
        "a fox",
        "--json",
        "--lora",
        f"{lora}:0.5",
        "--lora",
        f"transformer_2={lora}",
    ]
    assert run(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert [(each["path"], each["scale"], each["components"]) for each in record["loras"]] == [
        (lora, 0.5, ["transformer"]),
        (lora, 1.0, ["transformer_2"]),
    ]
    assert all(len(each["sha256"]) == 64 for each in record["loras"])
    assert plan.read_bytes() == before
    assert run(["run", str(plan), "--prompt", "a fox", "--lora", f"vae={lora}"]) == 2
    assert "takes LoRAs for transformer, transformer_2 only" in capsys.readouterr().err


def test_an_adapter_beside_a_component_s_weights_is_refused(saved: Saved, tmp_path: Path) -> None:
    model = Path(shutil.copytree(saved("flux") / "model", tmp_path / "model"))
    (model / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "somewhere/else"}')
    with pytest.raises(InvalidFile, match=r"adapter_config\.json"):
        load_held(plan_for(live_pipeline("flux")), model, EmulatedDevice(1024**3))
