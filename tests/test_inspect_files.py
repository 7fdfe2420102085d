"""``roost inspect`` of files and of ComfyUI's folders: screens, JSON, refusals; headers alone, and no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from directories import safetensors, with_dit, write
from malformed import refused
from malformed_formats import MALFORMED_FORMATS
from malformed_gguf import MALFORMED_GGUF
from quantised_files import LINEARS, filled, marker, of_linears
from roost.cli.app import run
from sparse_files import shapes_of, sparse_gguf, sparse_safetensors

KEYS = {
    *("schema", "path", "format", "layout", "family", "component", "candidates", "bytes", "load_bytes", "tensors"),
    *("bits_per_weight", "quantization", "quantization_detail", "runs", "warnings", "parts", "why_not"),
}


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def screen(words: list[str], capsys) -> str:
    assert run(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def document(name: str, capsys, *options: str) -> dict:
    return json.loads(screen(["inspect", name, "--json", *options], capsys))


def test_the_screen_of_a_gguf_says_what_it_is_and_how_it_is_stored(disk: Path, capsys) -> None:
    sparse_gguf(disk / "sd3.5_large-Q4_0.gguf", shapes_of("sd3.5-large"), "Q4_0", "sd3")
    assert screen(["inspect", "sd3.5_large-Q4_0.gguf"], capsys) == (
        "gguf · sd3.5-large transformer · 923 tensors · 4.56 GiB stored, 4.56 GiB loaded\n"
        "layout: its authors' names\n"
        "formats: 384 Q4_0 (4.22 GiB), 539 F32 (353 MiB), 4.50 bits a weight\n"
        "runs as stored: yes\n"
        "may be sd3.5-large transformer: all 923 names and shapes agree\n"
    )


def test_the_screen_of_an_ambiguous_file_asks(disk: Path, capsys) -> None:
    path = disk / "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
    sparse_safetensors(path, shapes_of("wan2.2-i2v-a14b"), "F8_E4M3", scale="scale_weight")
    found = screen(["inspect", path.name], capsys)
    assert found == (
        "safetensors · wan2.2-i2v-a14b transformer · 1502 tensors · 13.3 GiB stored, 13.3\n"
        "  GiB loaded\n"
        "layout: its authors' names\n"
        "formats: 406 comfy-fp8-scaled (13.3 GiB), 689 BF16 (10.8 MiB), 8.00 bits a\n"
        "  weight\n"
        "runs as stored: yes\n"
        "may be wan2.2-i2v-a14b transformer, wan2.2-i2v-a14b transformer_2: all 1095\n"
        "  names and shapes agree\n"
        "may be wan2.1-t2v-14b transformer, wan2.2-t2v-a14b transformer, wan2.2-t2v-a14b\n"
        "  transformer_2: 1094 of 1095 names and shapes agree; the file has another shape\n"
        "  of 'patch_embedding.weight'\n"
        "warning: the high-noise and low-noise files of wan2.2-i2v-a14b have the same\n"
        "  tensors, and only the file's name tells them apart: say which it is,\n"
        "  transformer (high noise) or transformer_2 (low noise)\n"
    )


def test_a_file_that_cannot_run_says_why_and_what_would(disk: Path, capsys) -> None:
    write(disk / "x.safetensors", of_linears("convrot_w4a4"))
    found = " ".join(screen(["inspect", "x.safetensors"], capsys).split())
    assert "runs as stored: no, ComfyUI's rotated 4 bits is rotated (convrot)" in found
    assert "what would work: a GGUF, or a file of the same model" in found


@pytest.mark.parametrize("key", LINEARS)
def test_the_json_of_a_file_has_every_key(key: str, disk: Path, capsys) -> None:
    write(disk / "x.safetensors", of_linears(key))
    found = document("x.safetensors", capsys)
    assert set(found) == KEYS
    assert (found["schema"], found["path"], found["format"]) == (1, "x.safetensors", "safetensors")
    assert found["runs"] == (found["why_not"] is None)
    assert key in found["quantization_detail"]["formats"]


def test_a_plain_file_is_not_quantised(disk: Path, capsys) -> None:
    sparse_safetensors(disk / "vae.safetensors", shapes_of("sdxl", "vae"), "F32")
    found = document("vae.safetensors", capsys)
    assert (found["quantization"], found["quantization_detail"], found["runs"]) == (None, None, True)
    assert (found["component"], found["layout"], found["bytes"]) == ("vae", "original", 2 * found["load_bytes"])


def test_the_asked_dtype_sizes_what_loads_and_a_variant_is_refused(disk: Path, capfd) -> None:
    write(disk / "x.safetensors", safetensors({"a.weight": ("BF16", (8, 8))}))
    assert document("x.safetensors", capfd, "--dtype", "float32")["load_bytes"] == 256
    assert "have no variants" in refused(["inspect", "x.safetensors", "--variant", "fp16"], disk, capfd)
    assert "choose one of" in refused(["inspect", "x.safetensors", "--dtype", "int4"], disk, capfd)


def test_what_lacks_its_scales_is_warned_of(disk: Path, capsys) -> None:
    tensors = {f"{index}.weight": ("F8_E4M3", (4, 4)) for index in range(6)} | {"scaled_fp8": ("F8_E4M3", (0,))}
    write(disk / "x.safetensors", safetensors(tensors))
    found = document("x.safetensors", capsys)
    assert not found["runs"]
    assert next(each for each in found["warnings"] if "has no scale" in each).startswith("'0.weight' is F8_E4M3")
    assert found["warnings"][-1] == "3 more weights lack theirs"


@pytest.mark.long
@pytest.mark.parametrize("name", MALFORMED_GGUF)
def test_a_malformed_gguf_is_refused_in_one_line(name: str, disk: Path, capfd) -> None:
    write(disk / "m.gguf", MALFORMED_GGUF[name][0])
    assert refused(["inspect", "m.gguf"], disk, capfd).startswith("error: m.gguf ")


@pytest.mark.long
@pytest.mark.parametrize("name", MALFORMED_FORMATS)
def test_a_malformed_marker_is_refused_in_one_line(name: str, disk: Path, capfd) -> None:
    write(disk / "m.safetensors", filled(*MALFORMED_FORMATS[name][:3]))
    assert refused(["inspect", "m.safetensors"], disk, capfd).startswith("error: m.safetensors can't be read")


def test_what_is_named_like_weights_and_is_none_is_refused(disk: Path, capfd) -> None:
    os.mkfifo(disk / "pipe.gguf")
    write(disk / "x.gguf", b"not a gguf at all")
    write(disk / "y.bin", b"GGUF")
    for name, said in (("pipe.gguf", "is a FIFO"), ("x.gguf", "isn't a"), ("y.bin", "short of")):
        assert said in refused(["inspect", name], disk, capfd)


def comfy(root: Path) -> Path:
    models = root / "ComfyUI" / "models"
    sparse_gguf(models / "unet" / "hunyuan-video-Q4_0.gguf", shapes_of("hunyuanvideo"), "Q4_0", "hyvid")
    sparse_safetensors(
        models / "text_encoders" / "t5xxl_fp8_e4m3fn.safetensors",
        shapes_of("flux.1-dev", "text_encoder_2", "diffusers"),
        "F8_E4M3",
    )
    write(
        models / "loras" / "style.safetensors",
        safetensors({"transformer_blocks.0.attn.to_q.lora_A.weight": ("BF16", (4, 3072))}),
    )
    write(models / "vae" / "broken.safetensors", safetensors({"a": ("F32", (4,))})[:-3])
    write(models / "checkpoints" / "old.ckpt", b"PK\x03\x04" + bytes(60))
    write(models / "vae" / "put_vae_here", b"")
    return root / "ComfyUI"


def test_a_comfyui_folder_is_a_table_and_a_broken_file_a_row(disk: Path, capsys) -> None:
    comfy(disk)
    lines = screen(["inspect", "ComfyUI"], capsys).splitlines()
    assert lines[0].startswith("5 files of weights · ")
    assert [line.split()[0] for line in lines[2:7]] == [
        "models/unet/hunyuan-video-Q4_0.gguf",
        "models/text_encoders/t5xxl_fp8_e4m3fn.safetensors",
        "models/vae/broken.safetensors",
        "models/checkpoints/old.ckpt",
        "models/loras/style.safetensors",
    ]
    assert lines[7].startswith("error: models/vae/broken.safetensors is 3 B short of what its header promises")
    assert lines[8].startswith("error: models/checkpoints/old.ckpt is a zip archive")


def test_the_json_of_a_folder_lists_its_files(disk: Path, capsys) -> None:
    comfy(disk)
    found = document("ComfyUI", capsys)
    assert set(found) == {"schema", "path", "files", "warnings"}
    good = [each for each in found["files"] if each["error"] is None]
    assert all(set(each) == KEYS | {"folder", "error"} for each in good)
    assert [(each["folder"], each["component"]) for each in good] == [
        ("diffusion_models", "transformer"),
        ("text_encoders", "text_encoder"),
        ("loras", "lora"),
    ]
    assert document("ComfyUI/models", capsys)["files"][0]["family"] == "hunyuanvideo"


def test_one_folder_of_files_is_listed_and_not_taken_for_a_pipeline(disk: Path, capsys) -> None:
    sparse_safetensors(disk / "vae" / "ae.safetensors", shapes_of("flux.1-dev", "vae"))
    sparse_safetensors(disk / "vae" / "wan2.2.safetensors", shapes_of("wan2.2-ti2v-5b", "vae"))
    sparse_gguf(disk / "mine" / "any.gguf", shapes_of("chroma"), "Q4_K", "flux")
    assert [each["folder"] for each in document("vae", capsys)["files"]] == ["vae", "vae"]
    assert [(each["family"], each["folder"]) for each in document("mine", capsys)["files"]] == [("chroma", "mine")]


def test_folders_that_a_yaml_file_names_are_looked_into(disk: Path, capsys) -> None:
    sparse_safetensors(disk / "shared" / "more" / "ae.safetensors", shapes_of("sdxl", "vae"))
    sparse_safetensors(disk / "other" / "clip_l.safetensors", shapes_of("flux.1-dev", "text_encoder", "diffusers"))
    text = f"a111:\n  base_path: {disk}/shared\n  vae: more\n  loras: none/at/all\n"
    text += f"b:\n  clip: |\n    {disk}/other\n    x\nc: 1\n"
    write(disk / "ComfyUI" / "extra_model_paths.yaml", text)
    found = document("ComfyUI", capsys)
    assert [(each["folder"], each["component"]) for each in found["files"]] == [
        ("vae", "vae"),
        ("text_encoders", "text_encoder"),
    ]
    assert found["warnings"] == ["'ComfyUI/extra_model_paths.yaml': section 'c' is no mapping"]
    write(disk / "ComfyUI" / "extra_model_paths.yaml", "a: [")
    assert "can't be used" in document("ComfyUI", capsys)["warnings"][0]


def test_links_that_lead_in_circles_are_followed_once(disk: Path, capsys) -> None:
    folder = comfy(disk) / "models" / "loras"
    os.symlink(folder, folder / "again")
    os.symlink(folder / "style.safetensors", folder / "twin.safetensors")
    os.symlink(disk / "nowhere", folder / "gone.safetensors")
    found = [each for each in document("ComfyUI", capsys)["files"] if each["folder"] == "loras"]
    assert [Path(each["path"]).name for each in found] == ["gone.safetensors", "style.safetensors"]
    assert "No such file" in found[0]["error"]


def test_a_directory_with_quantised_components_has_their_detail(disk: Path, capsys) -> None:
    content = of_linears("nvfp4")
    with_dit(disk / "m", {})
    write(disk / "m" / "transformer" / "diffusion_pytorch_model.safetensors", content)
    (component,) = document("m", capsys)["components"]
    assert component["quantization"] == "comfy-quant nvfp4"
    assert component["quantization_detail"]["formats"]["nvfp4"]["tensors"] == 2
    with_dit(disk / "plain", {"a.weight": ("BF16", (4, 4))})
    assert document("plain", capsys)["components"][0]["quantization_detail"] is None


def test_a_malformed_marker_in_a_directory_is_refused(disk: Path, capfd) -> None:
    with_dit(disk / "m", {})
    content = filled({"a.weight": ("F8_E4M3", (4, 4))}, {"a.comfy_quant": marker("x y")})
    write(disk / "m" / "transformer" / "diffusion_pytorch_model.safetensors", content)
    assert "which is no word" in refused(["inspect", "m", "--json"], disk, capfd)


def test_a_hundred_gigabytes_are_inspected_by_their_header_without_torch(disk: Path) -> None:
    path = sparse_safetensors(disk / "big.safetensors", {f"blocks.{i}.weight": (100_000, 16_384) for i in range(32)})
    assert path.stat().st_size > 100_000_000_000
    code = (
        "import sys; from roost.cli.app import run; code = run(['inspect', 'big.safetensors', '--json']);"
        " sys.exit(code or any(name in sys.modules for name in ('torch', 'diffusers', 'gguf', 'numpy')))"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == 32 * 100_000 * 16_384 * 2
    assert time.monotonic() - began < 30
